"""Clusters of frames that a method asks for, found once and kept beside its checkpoints."""

import dataclasses
import io
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kdjax import config, files, ssl
from kdjax.artifacts.model import EncoderSpec, encoder_of
from kdjax.config.methods import Asked
from kdjax.contexts.context import Context
from kdjax.models import Compute, OnLogMel
from kdjax.types import BadInput, Variables, under
from kdjax.views import draws

FILE = "clusters.npz"
"""In the folder of a stage: `centroids`, `shift` and `scale`, see `kdjax.ssl.Clusters`."""

_AT_ONCE = 32
_USUAL = 256


def resident(context: Context, c: config.Pretrain, spec: EncoderSpec) -> Mapping[str, ssl.Clusters]:
    """What lives on the device beside the examples, by name; nothing where no clusters are asked for.

    They are found on training examples that the seed draws, by the seed: see `kdjax.ssl.k_means`. What
    has been found is kept in the folder of the stage, and read again where it is resumed.

    Args:
      context: of the stage.
      c: its config.
      spec: of what it trains.

    Raises:
      BadInput: the stage that is named leaves nothing of single frames, or there are too few frames.
    """
    asked = c.method.asks(spec.encoder)
    if asked is None:
        return {}
    with under(f"{context.path}.method"):
        of_spectra, variables = isinstance(asked.of, OnLogMel), {}
        module = asked.of
        if not isinstance(module, OnLogMel):
            module, variables = _encoder(context, module, spec)
        blank = jnp.zeros(0)  # until they are found
        of = ssl.Clusters(blank, blank, blank, variables, module, of_spectra=of_spectra)
        context.check_sample(_examples(context, asked), field="examples")
        found = (
            _blank(of, spec, asked.clusters) if context.ahead else _kept(context, of, asked, spec)
        )
    arrays = {name: jnp.asarray(x) for name, x in found.items()}
    return {draws.CLUSTERS: dataclasses.replace(of, **arrays)}


def _examples(context: Context, asked: Asked) -> int:
    """How many training examples the clusters are found on."""
    return context.sample_size(asked.examples, usual=_USUAL)


def _encoder(context: Context, stage: str, spec: EncoderSpec) -> tuple[OnLogMel, Variables]:
    """The encoder of an earlier stage, which answers at each frame."""
    found, read = encoder_of(context.inputs[stage], field="of")
    module = found.bare(Compute())
    if not isinstance(module, OnLogMel) or found.widths:
        raise BadInput("of", f"{stage} leaves no whole log_mel", "name a stage that trained one")
    if found.inputs.fields != spec.inputs.fields:
        raise BadInput("of", f"{stage} is given {found.inputs}, and this one {spec.inputs}")
    with under("", {"encoder.net": "of"}):
        return ssl.at_frames(module), read()


def _blank(of: ssl.Clusters, spec: EncoderSpec, clusters: int) -> Mapping[str, np.ndarray]:
    """Ahead of a run: zeros in the place of clusters, by the names of their arrays."""
    features, _ = jax.eval_shape(of.features, spec.inputs.blank())
    dim = features.shape[-1]
    return {
        "centroids": np.zeros((clusters, dim), np.float32),
        "shift": np.zeros(dim, np.float32),
        "scale": np.ones(dim, np.float32),
    }


def _kept(
    context: Context, of: ssl.Clusters, asked: Asked, spec: EncoderSpec
) -> Mapping[str, np.ndarray]:
    """From the folder of the stage, or found and written there."""
    path = context.folder / FILE
    if not path.exists():
        raw = context.sample(_examples(context, asked), field="examples")
        frames = _frames(of, spec, raw)
        found = ssl.k_means(frames, clusters=asked.clusters, seed=context.seed)
        content = io.BytesIO()
        np.savez(content, **found._asdict())
        files.write(path, content.getvalue())
    with np.load(io.BytesIO(path.read_bytes())) as kept:
        return {name: kept[name] for name in ssl.KMeans._fields}


def _frames(
    of: ssl.Clusters, spec: EncoderSpec, raw: Mapping[str, np.ndarray]
) -> Float[np.ndarray, "frames dim"]:
    """What is clustered of all frames of raw examples, without padding."""

    @jax.jit
    def features(variables, batch):
        return dataclasses.replace(of, variables=variables).features(spec.inputs.see_all(batch))

    n, found = len(next(iter(raw.values()))), []
    for begin in range(0, n, _AT_ONCE):
        rows = np.arange(begin, begin + _AT_ONCE) % n  # of one shape
        x, mask = features(of.variables, {name: array[rows] for name, array in raw.items()})
        found.append(np.asarray(x)[: n - begin][np.asarray(mask)[: n - begin]])
    return np.concatenate(found)
