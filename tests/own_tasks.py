"""What a user may bring whose labels are no class of an example: measured values, vectors, tags."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from kdjax import data, models
from kdjax.models.sequences import mask_of

WIDTH, LENGTH, WORDS, TAGS = 6, 8, 12, 3
RATE, LONGEST, TONES = 1000, 900, {"a": 100, "b": 200, "c": 320}


def _measurements(split: str, n: int):
    random = np.random.default_rng(len(split))
    x = random.uniform(-1, 1, size=(n, WIDTH)).astype(np.float32)
    y = np.stack([x[:, 0] + np.abs(x[:, 1]), x[:, 2] * x[:, 3] - x[:, 4]], axis=1)
    return x, y + 0.02 * random.normal(size=y.shape)


def measured(split, *, n: int = 240, hidden: int = 0):
    """Two values that are no linear function of the inputs; the first `hidden` are not known."""
    x, y = _measurements(split, n)
    y[:hidden] = np.nan
    return data.from_fields({"x": x}, y, target=data.Values(2), name=f"measured {split}")


def single(split, *, n: int = 96):
    """The first of them alone, given as [n]."""
    x, y = _measurements(split, n)
    return data.from_fields({"x": x}, y[:, 0], target=data.Values(), name=f"single {split}")


def directions(split, *, n: int = 240):
    """A vector of three, by its direction."""
    x, y = _measurements(split, n)
    vectors = 5.0 * np.concatenate([y, 1.0 + x[:, :1]], axis=1)
    return data.from_fields({"x": x}, vectors, target=data.Vectors(3), name=f"directions {split}")


def tagged(split, *, n: int = 240):
    """Whether a word is higher than the one before it, as high or lower; none of it behind the end."""
    random = np.random.default_rng(len(split))
    tokens = random.integers(1, WORDS, size=(n, LENGTH))
    before = np.concatenate([tokens[:, :1], tokens[:, :-1]], axis=1)
    tags = np.sign(tokens - before) + 1
    behind = np.arange(LENGTH)[None, :] >= random.integers(3, LENGTH + 1, size=n)[:, None]
    tokens[behind], tags[behind] = 0, data.UNLABELLED
    target = data.Tags(classes=TAGS, positions=LENGTH)
    return data.from_fields(
        {"tokens": tokens}, tags, target=target, below={"tokens": WORDS}, name=f"tagged {split}"
    )


def ragged_tags(split, *, n: int = 240):
    """As `tagged`, each as long as it is."""
    whole = tagged(split, n=n)
    tokens = whole.inputs()["tokens"]
    return data.from_fields(
        {"tokens": [words[words > 0] for words in tokens]},
        whole.labels,
        target=whole.target,
        below={"tokens": WORDS},
        ragged={"tokens": LENGTH},
        name=f"ragged tags {split}",
    )


def measured_tags(split, *, n: int = 96):
    """A tag of each measurement, which an encoder of the whole example cannot give."""
    x, _ = _measurements(split, n)
    target = data.Tags(classes=2, positions=WIDTH)
    return data.from_fields(
        {"x": x}, (x > 0).astype(np.int32), target=target, name=f"signs {split}"
    )


def tones(random, *, most: int = 4):
    """A transcript of up to so many symbols, and its samples: a tone each, with pauses."""
    symbols = random.choice([*TONES], size=random.integers(1, most + 1))
    parts = [np.zeros(random.integers(30, 80))]
    for symbol in symbols:
        at = np.arange(random.integers(100, 140)) / RATE
        hertz = TONES[symbol] * random.uniform(0.95, 1.05)
        parts += [8000 * np.sin(2 * np.pi * hertz * at), np.zeros(random.integers(30, 80))]
    samples = np.concatenate(parts)
    return "".join(symbols), np.rint(samples + 50 * random.normal(size=len(samples)))


def spoken(split, *, n: int = 96, seconds: bool = False, hidden: int = 0, rate: int = 0):
    """Tones as symbols, each recording as long as it is, or all of one length."""
    random = np.random.default_rng(len(split))
    said, heard = zip(*(tones(random) for _ in range(n)), strict=True)
    labels, target = data.transcripts_of(
        [*said[: n - hidden], *[None] * hidden], said, alphabet=[*TONES], name=f"tones {split}"
    )
    target = data.Transcripts(target.alphabet, 4)
    labels = np.pad(labels, ((0, 0), (0, 4 - labels.shape[1])), constant_values=-1)
    whole = [samples.astype(np.int16) for samples in heard]
    if seconds:
        audio = np.stack([np.pad(own, (0, LONGEST - len(own))) for own in whole])
        return data.from_fields({"audio": audio}, labels, target=target, name=f"tones {split}")
    return data.from_fields(
        {"audio": whole},
        labels,
        target=target,
        ragged={"audio": LONGEST},
        rates={"audio": rate} if rate else None,
        name=f"ragged tones {split}",
    )


def changing(split):
    """One value to learn, and two to be tested on."""
    return single(split) if split == "train" else measured(split)


class MLP(nn.Module):
    """Two hidden layers."""

    width: int

    @nn.compact
    def __call__(self, x, *, train):
        """Features [batch, width]."""
        return nn.relu(nn.Dense(self.width)(nn.relu(nn.Dense(2 * self.width)(x))))


class Words(nn.Module):
    """Each word with the one before it; with the mask of its padding."""

    width: int

    @nn.compact
    def __call__(self, tokens, tokens_length=None, *, train):
        """Features [batch, positions, width], and which positions have a word."""
        x = nn.Embed(WORDS, self.width)(tokens)
        before = jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)
        x = nn.relu(nn.Dense(4 * self.width)(jnp.concatenate([x, before], axis=-1)))
        mask = tokens > 0
        if tokens_length is not None:
            mask = jnp.arange(tokens.shape[1])[None, :] < tokens_length[:, None]
        return nn.relu(nn.Dense(self.width)(x)), mask


class Frames(nn.Module):
    """Log-mel spectra and convolutions over their frames; with the mask of their padding."""

    width: int
    hop: int = 25
    masked: bool = True

    @nn.compact
    def __call__(self, audio, audio_length=None, *, train):
        """Features [batch, frames, width], and which frames are no padding."""
        front = models.LogMel(rate=RATE, frame=64, hop=self.hop, bands=12, low=20.0, range=50.0)
        x = 0.1 * front(audio)
        mask = mask_of(x, None if audio_length is None else front.frames(audio_length))
        for width in (2 * self.width, self.width):
            x = jnp.where(mask[..., None], x, 0.0)
            x = nn.relu(nn.Conv(width, (3,))(x))
        if audio_length is None or not self.masked:
            return x
        return x, mask


class Losing(Frames):
    """Has two frames of each recording left as it trains."""

    @nn.compact
    def __call__(self, audio, audio_length=None, *, train):
        """Features [batch, frames, width], and which frames are no padding."""
        x, mask = Frames(self.width)(audio, audio_length, train=train)
        return x, mask & (jnp.arange(x.shape[1]) < 2)[None] if train else mask
