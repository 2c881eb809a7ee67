"""What a stage sees of each example, drawn on the device."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from kdjax import keys
from kdjax.types import Batch, PyTree, length_of
from kdjax.views.masking import frame_spans, masked_tokens, random_patch_mask
from kdjax.views.recipes import batch_views

Draw = Callable[[Batch, PyTree, Key[Array, ""]], Batch]
"""`(batch with raw inputs, resident, key of the run) -> what the objective sees`."""

Recipe = Callable[[Key[Array, ""], PyTree], PyTree]
"""`(key, raw example) -> what a model is given of it`."""


HIDDEN = "hidden"
"""What a view may have beside the inputs of a model: which positions are to be said, bool."""


def apart(view: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The inputs of a model, and what a view has beside them: that is a part of the batch."""
    beside = {name: x for name, x in view.items() if name == HIDDEN}
    return {name: x for name, x in view.items() if name != HIDDEN}, beside


def _view(
    recipe: Recipe, stream_key: Key[Array, ""], batch: Batch, i: int = 0, *, of: int = 1
) -> dict[str, Array]:
    """View `of * epoch + i` of each example: none comes twice, where `of` are drawn an epoch."""
    number = of * batch["epoch"] + jnp.uint32(i)
    return batch_views(recipe, stream_key, number, batch["id"], batch["inputs"])


def one_view(recipe: Recipe, stream: str, *, name: str) -> Draw:
    """View `epoch` of each example."""

    def draw(batch, resident, key):
        return {name: _view(recipe, keys.stream(key, stream), batch)}

    return draw


def given(recipe: Recipe, stream: str) -> Draw:
    """`inputs`, view `epoch` of each example, and what it has beside them: see `apart`."""
    one = one_view(recipe, stream, name="inputs")

    def draw(batch, resident, key):
        inputs, beside = apart(one(batch, resident, key)["inputs"])
        return {"inputs": inputs, **beside}

    return draw


def two_views(recipe: Recipe, stream: str) -> Draw:
    """`view_a` and `view_b`: views `2 * epoch` and `2 * epoch + 1` of each example."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, stream)
        view_a, view_b = (_view(recipe, stream_key, batch, i, of=2) for i in range(2))
        return {"view_a": view_a, "view_b": view_b}

    return draw


def local_views(recipe: Recipe, stream: str, *, crops: int) -> Draw:
    """`local` [batch, crops, ...]: views `crops * epoch` and on, of a stream of their own."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, f"{stream}/local")
        every = [_view(recipe, stream_key, batch, i, of=crops) for i in range(crops)]
        return {"local": jax.tree.map(lambda *crops: jnp.stack(crops, axis=1), *every)}

    return draw


def patch_masks(stream: str, *, patches: int, share: float) -> Draw:
    """`kept` [batch, shown] and `hidden` [batch, patches]: those of view `epoch`, drawn apart.

    Raises:
      BadInput: see `kdjax.views.random_patch_mask`.
    """

    def draw(batch, resident, key):
        stream_key = keys.stream(key, f"{stream}/patches")

        def one(view, id):
            key = keys.example(stream_key, view, id)
            return random_patch_mask(key, patches=patches, share=share)

        kept, hidden = jax.vmap(one)(batch["epoch"], batch["id"])
        return {"kept": kept, "hidden": hidden}

    return draw


def hidden_tokens(
    recipe: Recipe,
    stream: str,
    *,
    field: str,
    share: float,
    mask: int,
    frame: tuple[int, ...],
    below: int,
) -> Draw:
    """`view_a`, view `epoch` with hidden tokens; `whole`, all of them; `hidden`, which are to be said.

    Args:
      recipe: of the view.
      stream: of the draws.
      field: that has the tokens, ragged.
      share: see `kdjax.views.masked_tokens`.
      mask: likewise.
      frame: likewise.
      below: likewise.
    """

    def draw(batch, resident, key):
        seen = _view(recipe, keys.stream(key, stream), batch)
        stream_key = keys.stream(key, f"{stream}/tokens")

        def one(view, id, tokens, length):
            return masked_tokens(
                keys.example(stream_key, view, id),
                tokens,
                length,
                share=share,
                mask=mask,
                frame=frame,
                below=below,
            )

        whole, length = seen[field], seen[length_of(field)]
        tokens, hidden = jax.vmap(one)(batch["epoch"], batch["id"], whole, length)
        return {"view_a": {**seen, field: tokens}, "whole": whole, "hidden": hidden}

    return draw


CLUSTERS = "clusters"
"""What lives on the device beside the examples where frames are asked for: see `hidden_frames`."""


def hidden_frames(
    recipe: Recipe,
    stream: str,
    *,
    frames: Callable[[Mapping[str, Array]], tuple[int, Int[Array, " batch"]]],
    share: float,
    span: int,
) -> Draw:
    """`view_a`, view `epoch`; `targets`, the cluster of each of its frames; `hidden`, which are hidden.

    Args:
      recipe: of the view.
      stream: of the draws.
      frames: `batch of views -> (frames that there may be, frames of each)`.
      share: see `kdjax.views.frame_spans`.
      span: likewise.
    """

    def draw(batch, resident, key):
        seen = _view(recipe, keys.stream(key, stream), batch)
        stream_key = keys.stream(key, f"{stream}/frames")
        most, lengths = frames(seen)

        def one(view, id, length):
            drawn = keys.example(stream_key, view, id)
            return frame_spans(drawn, length, frames=most, share=share, span=span)

        hidden = jax.vmap(one)(batch["epoch"], batch["id"], lengths)
        return {"view_a": seen, "targets": resident[CLUSTERS].assigned(seen), "hidden": hidden}

    return draw


def label(batch, resident, key):
    """The label, negative where it may not be used."""
    return {"label": batch["label"]}


def together(*draws: Draw) -> Draw:
    """What each of them draws."""

    def draw(batch, resident, key):
        return {name: x for own in draws for name, x in own(batch, resident, key).items()}

    return draw
