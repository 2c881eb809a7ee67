"""Label-free distillation on the digits, by the cosine to the teacher's embedding.

SimCLR on all 1,437 training images; a small encoder learns the cached embedding of the large one without
labels; its frozen features are evaluated with five labels per class, and it is fine-tuned on them, as the
large one is. `seed.py` and `compress.py` beside this file have other methods in the same line.

  kdjax --config=configs/kd/embedding_digits.py:seeds=5 --workdir=DIR
"""

from kd_digits import Digits
from ml_collections import ConfigDict


def get_config(arg: str | None = None) -> ConfigDict:
    return line(arg, name="embedding_digits", method=dict(name="cosine"))


def line(arg: str | None, *, name: str, method: dict) -> ConfigDict:
    """The line with `method`, see `kdjax.config.EmbeddingMethod`."""
    base = Digits(arg)
    judged = dict(kind="evaluate", knn=dict(k=10))
    stages = dict(
        pretrain=base.stages["pretrain"],
        frozen_teacher=dict(judged, model="pretrain"),
        teacher=base.stages["teacher"],
        **learned(base, method),
        frozen_student=dict(judged, model="student_encoder"),
    )
    return base.config_of(name, stages)


def learned(base: Digits, method: dict, *, student: str = "student") -> dict:
    """The stages of an encoder that learns the pretrained one's embedding, and is fine-tuned."""
    encoder = {name: x for name, x in base.distilled.items() if name != "temperature"}
    cache = dict(base.stages["cache"], teacher="pretrain", signal=dict(name="embedding"))
    return {
        f"{student}_cache": cache,
        f"{student}_encoder": dict(
            encoder,
            kind="distill_encoder",
            cache=f"{student}_cache",
            encoder=base.student,
            method=method,
        ),
        student: dict(base.stages["teacher"], start_from=f"{student}_encoder"),
    }
