"""What the distillation configs in this folder share: the digits line, and how a student is trained.

SimCLR on all 1,437 training images, a teacher fine-tuned on five labels a class, and students that learn
all images from it in 400 steps of 256. Each config says what is its own. Their arguments:

  seeds=5     for how many seeds
  tune        tested on a fifth of train, never on test: to choose weights
  runlocal    two steps of tiny networks
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg

BLOCKS = [f"encoder/block{i}" for i in range(4)]
"""The blocks of teacher and student: a convolution and its norm each. The ReLU comes after them."""


class Digits:
    """The stages before the students, and what a stage has that makes one.

    Attributes:
      seeds: for which to run.
      steps: of a student.
      network, student: of the teacher, and of the student.
      widths: of both.
      stages: `pretrain`, `teacher`, `cache`.
      distilled: fields of a stage that learns from the cache.
    """

    def __init__(self, arg: str | None, *, seeds: int = 1):
        args = parse_arg(arg, seeds=seeds, tune=False, runlocal=False)
        steps = dict(pretrain=350, teacher=150, student=400)
        network, student, warmup = [32, 64, 128, 256], [16, 32, 64, 96], 20
        split = ("train[:80%]", "train[80%:]") if args["tune"] else ("train", "test")
        if args["runlocal"]:
            steps, warmup = dict.fromkeys(steps, 2), 0
            network, student = [4, 4, 4, 8], [4, 4, 4, 4]
            split, args["seeds"] = ("train[:20%]", "test[:20%]"), 1
        self.seeds = list(range(args["seeds"]))
        self.steps = steps["student"]
        self.widths = network, student
        self.network, self.student = (dict(name="cnn", widths=widths) for widths in self.widths)
        self.data = dict(
            name="digits",
            train_split=split[0],
            test_split=split[1],
            labels_per_class=5,
            mean=[0.3],
            std=[0.37],
        )
        adamw = dict(
            name="adamw", weight_decay=1e-2, schedule=dict(name="cosine", warmup_steps=warmup)
        )
        training = dict(checkpoint_every_steps=100, log_every_steps=10)
        self.views = dict(recipe="crop_flip", crop_scale=[0.6, 1.0], shift=1, flip=0.0, cutout=2)
        self.stages: dict[str, dict] = dict(
            pretrain=dict(
                kind="pretrain",
                encoder=self.network,
                projector=[8, 8] if args["runlocal"] else [256, 64],
                temperature=0.2,
                views=dict(
                    recipe="simclr",
                    crop_scale=[0.4, 1.0],
                    crop_ratio=[0.7, 1.43],
                    flip=0.0,
                    shift=1,
                    brightness=0.4,
                    contrast=0.4,
                    saturation=0.0,
                    hue=0.0,
                    grayscale=0.0,
                    blur=0.3,
                    blur_kernel=3,
                    cutout=3,
                ),
                steps=steps["pretrain"],
                batch=128,
                optimizer=dict(adamw, learning_rate=3e-3),
                **training,
            ),
            teacher=dict(
                kind="finetune",
                start_from="pretrain",
                views=dict(recipe="crop_flip", crop_scale=[0.8, 1.0], flip=0.0),
                steps=steps["teacher"],
                batch=64,
                optimizer=dict(adamw, learning_rate=1e-3),
                **training,
            ),
            cache=dict(kind="cache", teacher="teacher", recipe=self.views, views=16),
        )
        self.training = dict(
            steps=steps["student"],
            batch=64 if args["runlocal"] else 256,
            optimizer=dict(adamw, learning_rate=4e-3),
            **training,
        )
        self.distilled = dict(kind="distill", cache="cache", temperature=2.0, **self.training)

    def learner(self, **own) -> dict:
        """The stage of a student with these fields of its own."""
        return {**self.distilled, "encoder": self.student, **own}

    def config(self, name: str, **stages: dict) -> ConfigDict:
        """The run of the stages before the students, and of these."""
        c = ConfigDict()
        c.name = name
        c.seeds = self.seeds
        c.data = self.data
        c.stages = ConfigDict({**self.stages, **stages}, sort_keys=False)
        return c


def student(name: str, arg: str | None, **own) -> ConfigDict:
    """The run of one student, whose stage has these fields of its own."""
    line = Digits(arg)
    return line.config(name, student=line.learner(**own))


def with_features(**terms: dict) -> dict:
    """Fields of a student that learns features, too: the terms of the logits stay.

    `taps` of a term are paths in both, which have their blocks by the same names. The papers have the
    cross-entropy of all labels besides, where these students have five a class.
    """
    found = {}
    for name, term in terms.items():
        taps = {side: term["taps"] for side in ("student", "teacher") if "taps" in term}
        found[name] = {field: x for field, x in term.items() if field != "taps"} | taps
    return dict(live=True, features=found)
