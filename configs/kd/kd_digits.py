"""What the distillation configs in this folder share: the digits line, and how a student is trained.

The stages of `configs/digits.py`: SimCLR on all 1,437 training images, a teacher fine-tuned on five
labels per class; and students that learn from it on all images, in 400 steps of 128. Each config adds
what is its own. Their arguments:

  seeds=5     for how many seeds
  tune        tested on a fifth of train, never on test: to choose weights
  runlocal    two steps of tiny networks
"""

import digits
from ml_collections import ConfigDict

from kdjax.parse import parse_arg

BLOCKS = [f"encoder/block{i}" for i in range(4)]
"""The blocks of teacher and student: a convolution and its norm each. The ReLU comes after them."""


class Digits:
    """The stages before the students, and what a stage has that makes one.

    Attributes:
      stages: `pretrain`, `teacher`, `cache`.
      network: the teacher's.
      widths: of the blocks of the teacher, and of the student.
      student: the student's network.
      distilled: a stage that learns from the cache, but for its `encoder`.
      scratch: a stage that has the student's network learn the labels alone.
    """

    stages: dict[str, dict]

    def __init__(self, arg: str | None, *, seeds: int = 1):
        args = parse_arg(arg, seeds=seeds, tune=False, runlocal=False)
        asked = [name for name in ("tune", "runlocal") if args[name]]
        base = digits.get_config(",".join([f"seeds={args['seeds']}", *asked])).to_dict()
        stages = base.pop("stages")
        self._run = base
        self.stages = {name: stages[name] for name in ("pretrain", "teacher", "cache")}
        own = dict(batch=128)
        if args["runlocal"]:
            base["data"] |= dict(train_split="train[:20%]", test_split="test[:20%]")
            self.stages["pretrain"] |= dict(
                encoder=dict(name="cnn", widths=[4, 4, 4, 8]), projector=[8, 8]
            )
            own = dict(batch=64)
            stages["student"]["encoder"] = dict(name="cnn", widths=[4, 4, 4, 4])
        self.network: dict = self.stages["pretrain"]["encoder"]
        self.student: dict = stages["student"].pop("encoder")
        self.widths: tuple[list[int], list[int]] = (self.network["widths"], self.student["widths"])
        self.distilled: dict = stages["student"] | own
        self.scratch: dict = stages["scratch"] | own | dict(encoder=self.student)

    def learner(self, **own) -> dict:
        """The stage of a student, with these fields of its own."""
        return {**self.distilled, "encoder": self.student, **own}

    def config(self, name: str, **stages: dict) -> ConfigDict:
        """The run of the stages before the students, and of these."""
        return self.config_of(name, {**self.stages, **stages})

    def config_of(self, name: str, stages: dict) -> ConfigDict:
        """The run of these stages alone."""
        c = ConfigDict({**self._run, "name": name})
        c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
        return c


def student(name: str, arg: str | None, **own) -> ConfigDict:
    """The run of one student, whose stage has these fields of its own."""
    line = Digits(arg)
    return line.config(name, student=line.learner(**own))


def with_features(**terms: dict) -> dict:
    """Fields of a student that learns features, too: the terms of the logits stay.

    `taps` of a term are paths in both models, whose blocks have the same names. The papers also use the
    cross-entropy of all labels, where these students have five per class.
    """
    found = {}
    for name, term in terms.items():
        taps = {side: term["taps"] for side in ("student", "teacher") if "taps" in term}
        found[name] = {field: x for field, x in term.items() if field != "taps"} | taps
    return dict(live=True, features=found)
