"""What a method sees of each example, drawn on the device."""

import jax
import jax.numpy as jnp

from kdjax import keys, views
from kdjax.stages.build import Recipe
from kdjax.stages.fit import Views


def one_view(recipe: Recipe, stream: str) -> Views:
    """View `epoch` of each example."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, stream)
        image = views.batch_views(recipe, stream_key, batch["epoch"], batch["id"], batch["image"])
        return {"view_a": image}

    return draw


def two_views(recipe: Recipe, stream: str) -> Views:
    """Views `2 * epoch` and `2 * epoch + 1` of each example."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, stream)

        def view(i):
            number = 2 * batch["epoch"] + jnp.uint32(i)
            return views.batch_views(recipe, stream_key, number, batch["id"], batch["image"])

        return {"view_a": view(0), "view_b": view(1)}

    return draw


def local_views(recipe: Recipe, stream: str, *, crops: int) -> Views:
    """`local` [batch, crops, ...]: views `crops * epoch` and on, of a stream of their own."""

    def draw(batch, resident, key):
        stream_key = keys.stream(key, f"{stream}/local")

        def view(i):
            number = crops * batch["epoch"] + jnp.uint32(i)
            return views.batch_views(recipe, stream_key, number, batch["id"], batch["image"])

        return {"local": jnp.stack([view(i) for i in range(crops)], axis=1)}

    return draw


def patch_masks(stream: str, *, patches: int, share: float) -> Views:
    """`kept` [batch, shown] and `hidden` [batch, patches]: those of view `epoch`, drawn apart.

    Raises:
      BadInput: see `kdjax.views.random_patch_mask`.
    """

    def draw(batch, resident, key):
        stream_key = keys.stream(key, f"{stream}/patches")

        def one(view, id):
            key = keys.example(stream_key, view, id)
            return views.random_patch_mask(key, patches=patches, share=share)

        kept, hidden = jax.vmap(one)(batch["epoch"], batch["id"])
        return {"kept": kept, "hidden": hidden}

    return draw


def label(batch, resident, key):
    """The label, negative where it may not be used."""
    return {"label": batch["label"]}


def together(*draws: Views) -> Views:
    """What each of them draws."""

    def draw(batch, resident, key):
        return {name: x for own in draws for name, x in own(batch, resident, key).items()}

    return draw
