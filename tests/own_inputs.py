"""What a user may bring whose examples are no images: a source of tokens, one of two inputs, encoders."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from kdjax import data

LENGTH, WORDS, CLASSES = 12, 20, 3


def _sentences(split: str, n: int):
    """Tokens of different lengths, zeros behind; one of the first `CLASSES` says the class."""
    random = np.random.default_rng(len(split))
    labels = np.arange(n) % CLASSES
    tokens = random.integers(CLASSES + 1, WORDS, size=(n, LENGTH))
    lengths = random.integers(4, LENGTH + 1, size=n)
    tokens[np.arange(n), random.integers(0, lengths)] = labels + 1
    tokens[np.arange(LENGTH)[None, :] >= lengths[:, None]] = 0
    return tokens, labels


def sentences(split, *, n: int = 240):
    """Which of three words is in it."""
    tokens, labels = _sentences(split, n)
    return data.from_fields(
        {"tokens": tokens}, labels, classes=CLASSES, below={"tokens": WORDS}, name=f"words {split}"
    )


def ragged(split, *, n: int = 240):
    """The same as `sentences`, each as long as it is."""
    tokens, labels = _sentences(split, n)
    examples = [
        {"tokens": words[words > 0], "label": label}
        for words, label in zip(tokens, labels, strict=True)
    ]
    return data.from_source(
        examples,
        inputs=["tokens"],
        classes=CLASSES,
        below={"tokens": WORDS},
        ragged={"tokens": LENGTH},
        name=f"ragged words {split}",
    )


def captioned(split, *, n: int = 240):
    """A picture and words, from a list: the class counts a bright picture, and one of the words."""
    tokens, labels = _sentences(split, n)
    random = np.random.default_rng(n)
    bright = random.integers(2, size=n)
    pictures = random.integers(0, 100, (n, 6, 4, 1), np.uint8)
    pictures += (100 * bright)[:, None, None, None].astype(np.uint8)
    examples = [
        {
            "picture": pictures[i],
            "tokens": tokens[i],
            "label": bright[i] + (labels[i] == CLASSES - 1),
            "id": f"{split}{i}",
        }
        for i in range(n)
    ]
    return data.from_source(
        examples, inputs=["picture", "tokens"], classes=CLASSES, id="id", name=f"captioned {split}"
    )


def spectra(split, *, n: int = 96, height: int = 12, width: int = 20):
    """Pictures of two channels that are not square: one of them has stripes, down or across."""
    random = np.random.default_rng(len(split))
    labels = np.arange(n) % 4
    pictures = random.integers(0, 100, (n, height, width, 2), np.uint8)
    down, across = np.broadcast_arrays(np.arange(height)[:, None] % 4, np.arange(width) % 4)
    stripes = 140 * (np.stack([down, across]) < 2)[labels // 2]
    pictures[np.arange(n), :, :, labels % 2] += stripes.astype(np.uint8)
    ids = np.arange(n) + (n if split == "test" else 0)
    return data.from_arrays(pictures, labels, classes=4, ids=ids, name=f"spectra {split}")


def sounds(split, *, n: int = 24):
    """Tones of 400 samples, high or low."""
    labels = np.arange(n) % 2
    cycles = 20 + 60 * labels[:, None] + np.arange(n)[:, None] % 7
    tones = 9000 * np.sin(2 * np.pi * cycles * np.arange(400) / 400)
    return data.from_fields(
        {"audio": tones.astype(np.int16)}, labels, classes=2, name=f"tones {split}"
    )


def pictures(split, *, kept: float = 1.0):
    """The first of the digits."""
    digits = data.digits(split)
    return digits.select(np.arange(round(kept * len(digits))))


def missing(split):
    """Fails as a file does that is not there."""
    raise FileNotFoundError(f"no file of {split}")


def top(answers, labels, *, k: int = 2):
    """How often the right class is among the first `k`."""
    return ((-answers).argsort(-1)[:, :k] == labels[:, None]).any(-1).mean()


def count(answers, labels):
    """No fraction."""
    return len(answers)


def fails(answers, labels):
    """A mistake of the user's."""
    return len(labels) / 0


class Reader(nn.Module):
    """One block of attention over words, padding masked, with dropout."""

    width: int
    rate: float = 0.0

    @nn.compact
    def __call__(self, tokens, tokens_length=None, *, train):
        """Features [batch, width]."""
        if tokens_length is None:
            mask = tokens > 0
        else:
            mask = jnp.arange(tokens.shape[1])[None, :] < tokens_length[:, None]
        x = nn.Embed(WORDS, self.width)(tokens)
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        attention = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=self.width)
        x = x + attention(nn.LayerNorm()(x), mask=mask[:, None, None, :])
        x = x + nn.Dense(self.width)(nn.relu(nn.Dense(2 * self.width)(nn.LayerNorm()(x))))
        weight = mask[..., None].astype(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


class Blind(nn.Module):
    """Takes no length."""

    width: int

    @nn.compact
    def __call__(self, tokens, *, train):
        """Features [batch, width]."""
        return nn.Embed(WORDS, self.width)(tokens).mean(1)


class Both(nn.Module):
    """A picture and words: its inputs by name."""

    width: int

    @nn.compact
    def __call__(self, picture, tokens, *, train):
        """Features [batch, width]."""
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(picture)).mean((1, 2))
        y = nn.Embed(WORDS, self.width)(tokens).sum(1)
        return nn.relu(nn.Dense(self.width)(jnp.concatenate([x, y], -1)))
