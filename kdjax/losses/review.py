"""The loss of knowledge review (ReviewKD)."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from kdjax.losses.features import hint_mse
from kdjax.losses.pooling import adaptive_average_pool
from kdjax.types import BadInput


def _one_level(
    student: Float[Array, "batch height width channel"],
    teacher: Float[Array, "batch height width channel"],
) -> Float[Array, " batch"]:
    loss, weight, total = hint_mse(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side < student.shape[1]:
            weight /= 2
            total += weight
            pooled = (adaptive_average_pool(maps, (side, side)) for maps in (student, teacher))
            loss += weight * hint_mse(*pooled)
    return loss / total


def review_hcl(
    student_levels: Sequence[Float[Array, "batch _ _ _"]],
    teacher_levels: Sequence[Float[Array, "batch _ _ _"]],
) -> Float[Array, " batch"]:
    """Per-example hierarchical context loss, the sum over levels.

    A level is the weighted mean of mean squared errors: of the maps themselves, and of the maps
    pooled to 4x4, 2x2 and 1x1, those that are below the height of the level. The weights are 1,
    1/2, 1/4 and 1/8 in the order of use, so where 4x4 is left out 2x2 weighs 1/2.

    Args:
      student_levels: the outputs of `kdjax.models.Review`, any float dtype (float32 inside). Of a
        level that is a vector give `[batch, 1, 1, channel]`.
      teacher_levels: maps of the same shapes. No gradient reaches them.

    Raises:
      BadInput: there are not as many levels on both sides, or none.

    Reference: Chen et al. 2021, https://arxiv.org/abs/2104.09044, sec. 3, whose authors' code has
    these weights.
    """
    if not student_levels or len(student_levels) != len(teacher_levels):
        raise BadInput(
            "student_levels",
            f"{len(student_levels)} for {len(teacher_levels)} of the teacher",
            "give one for each, and at least one",
        )
    levels = zip(student_levels, teacher_levels, strict=True)
    first, *others = (_one_level(student, teacher) for student, teacher in levels)
    return sum(others, first)
