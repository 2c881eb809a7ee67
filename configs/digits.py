"""The whole line on the embedded handwritten digits: five labels per class, the rest unlabelled.

SimCLR on all 1,437 training images, a teacher fine-tuned on 50 of them, its logits cached for every
(id, view), a student distilled from the cache on all images, and as the baseline the same student trained
on the 50 alone; the student pruned, with half of its channels, in int8, and trained further in int8;
exported; everything over five seeds.

  kdjax --config=configs/digits.py --workdir=DIR
  kdjax --config=configs/digits.py:labels=10,seeds=1 --workdir=DIR
  kdjax --config=configs/digits.py:tune --workdir=DIR      (tested on a fifth of train, never on test)
  kdjax --config=configs/digits.py:label_free --workdir=DIR
  kdjax --config=configs/digits.py:pruning,labels=100 --workdir=DIR
  kdjax --config=configs/digits.py:quantization --workdir=DIR

`label_free` is another line: the student's encoder learns the embedding of the pretrained encoder from
all images without a label, and is then fine-tuned on the 50, as the teacher is.

`pruning` compares ways to prune the student at 50, 80, 90 and 95 percent, each with the same number of
training steps, half of them before pruning where it happens at one time; see `_pruning`. `quantization`
compares the student in int8, int4, ternary and binary weights, as it is and with further training.
"""

from ml_collections import ConfigDict

from kdjax.parse import parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    args = parse_arg(
        arg,
        labels=5,
        sparsity=0.85,
        seeds=5,
        label_free=False,
        pruning=False,
        quantization=False,
        tune=False,
        runlocal=False,
    )
    steps = dict(pretrain=350, teacher=150, student=400, pruned=400, small=400, aware=200)
    if args["runlocal"]:
        steps = dict.fromkeys(steps, 2) | dict(pruned=4)
        args["seeds"] = 1
    warmup, cached_views = (0, 2) if args["runlocal"] else (20, 16)

    c = ConfigDict()
    c.name = "digits"
    c.seeds = list(range(args["seeds"]))
    train, test = ("train[:80%]", "train[80%:]") if args["tune"] else ("train", "test")
    c.data = dict(
        name="digits",
        train_split=train,
        test_split=test,
        labels_per_class=args["labels"],
        mean=[0.3],
        std=[0.37],
    )

    # A digit is no longer itself when it is mirrored or coloured: shapes and strokes vary instead.
    contrast_views = dict(
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
    )
    train_views = dict(recipe="crop_flip", crop_scale=[0.6, 1.0], flip=0.0, cutout=2)
    # Few labels: the pretrained encoder has seen the strong views, the fine-tuning wants true digits.
    tune_views = dict(recipe="crop_flip", crop_scale=[0.8, 1.0], flip=0.0)
    adamw = dict(name="adamw", weight_decay=1e-2, schedule=dict(name="cosine", warmup_steps=warmup))
    training = dict(checkpoint_every_steps=100, log_every_steps=10)
    student = dict(name="cnn", widths=[16, 32, 64, 96])
    distilled = dict(
        kind="distill",
        cache="cache",
        temperature=2.0,
        batch=256,
        optimizer=dict(adamw, learning_rate=4e-3),
        **training,
    )

    stages = dict(
        pretrain=dict(
            kind="pretrain",
            encoder=dict(name="cnn", widths=[32, 64, 128, 256]),
            projector=[256, 64],
            method=dict(name="simclr", temperature=0.2),
            views=contrast_views,
            steps=steps["pretrain"],
            batch=128,
            optimizer=dict(adamw, learning_rate=3e-3),
            **training,
        ),
        teacher=dict(
            kind="finetune",
            start_from="pretrain",
            views=tune_views,
            steps=steps["teacher"],
            batch=64,
            optimizer=dict(adamw, learning_rate=1e-3),
            **training,
        ),
        cache=dict(kind="cache", teacher="teacher", recipe=train_views, views=cached_views),
        student=dict(distilled, encoder=student, steps=steps["student"]),
        scratch=dict(
            kind="finetune",
            encoder=student,
            views=train_views,
            steps=steps["student"],
            batch=256,
            optimizer=dict(adamw, learning_rate=4e-3),
            **training,
        ),
        pruned=dict(
            distilled,
            start_from="student",
            steps=steps["pruned"],
            prune=dict(
                name="gradual",
                sparsity=args["sparsity"],
                begin_step=0,
                end_step=steps["pruned"] // 2,
                every_steps=5,
            ),
        ),
        bears=dict(kind="sensitivity", model="student"),
        # In eights: ONNX Runtime lays channels out so; with any widths half of them is hardly faster.
        shrunk=dict(kind="shrink", model="student", sparsity=0.5, sensitivity="bears", multiple=8),
        small=dict(distilled, start_from="shrunk", steps=steps["small"]),
        int8=dict(kind="quantize", model="student"),
        small_int8=dict(kind="quantize", model="small"),
        small_aware=dict(
            distilled,
            start_from="small_int8",
            steps=steps["aware"],
            optimizer=dict(adamw, learning_rate=4e-4),
        ),
        export_teacher=dict(kind="export", model="teacher"),
        export_student=dict(kind="export", model="student"),
        export_pruned=dict(kind="export", model="pruned"),
        export_small=dict(kind="export", model="small"),
        export_int8=dict(kind="export", model="int8", formats=["onnx"]),
        export_small_int8=dict(kind="export", model="small_int8", formats=["onnx"]),
        export_small_aware=dict(kind="export", model="small_aware", formats=["onnx"]),
    )
    if args["label_free"]:
        stages = dict(
            pretrain=stages["pretrain"],
            cache=dict(stages["cache"], teacher="pretrain", signal=dict(name="embedding")),
            student_encoder=dict(
                kind="distill_encoder",
                cache="cache",
                encoder=student,
                steps=steps["student"],
                batch=256,
                optimizer=dict(adamw, learning_rate=4e-3),
                **training,
            ),
            teacher=stages["teacher"],
            student=dict(stages["teacher"], start_from="student_encoder"),
            scratch=stages["scratch"],
        )
    elif args["pruning"]:
        before = ("pretrain", "teacher", "cache")
        stages = {n: stages[n] for n in before} | _pruning(stages["student"], args["runlocal"])
    elif args["quantization"]:
        before = ("pretrain", "teacher", "cache", "student")
        stages = {n: stages[n] for n in before} | _quantization(stages["small_aware"])
    c.stages = ConfigDict(stages, sort_keys=False)  # the report's rows stand in this order
    return c


def _pruning(student: dict, runlocal: bool) -> dict:
    """Ways to prune, each 600 steps long but for `tickets`, which takes 300 a round.

    * `dense`: nothing is pruned.
    * `one_shot`, `gradual`, `random`: 300 dense steps, then 300 with the smallest weights, or any,
      pruned at once or by the cubic schedule. All that masks allocates by ERK; `uniform` is `gradual`
      with the same sparsity for every kernel instead.
    * `ticket`: 300 dense steps, then what they had become after 30, masked where it ended smallest,
      for 300; `fresh` begins with new random weights instead. `tickets` prunes in rounds, from one
      sparsity to the next.
    * `rigl`: 600 sparse steps from the first on, with masks that move for 450.
    * `channels`, `slimming`: 300 steps, the second with a penalty on the scales of BatchNorm, then
      real smaller shapes with that share of the parameters gone, and 300 steps more.
    """
    half, every, early = (4, 1, 1) if runlocal else (300, 10, 30)
    shares = (50,) if runlocal else (50, 80, 90, 95)
    params = 79_866  # of the dense student
    fresh = dict(student, steps=half)
    more = {name: value for name, value in fresh.items() if name != "encoder"}
    units = dict(kind="shrink")

    stages = dict(
        half=dict(fresh, rewind_step=early),
        half_slim=dict(fresh, scale_l1=1e-3),
        dense=dict(more, start_from="half"),
    )
    last = "half"
    for share in shares:
        sparsity = share / 100
        gradual = dict(
            name="gradual",
            sparsity=sparsity,
            begin_step=0,
            end_step=half * 3 // 4,
            every_steps=every,
            allocation="erk",
        )
        once = dict(gradual, schedule="one_shot")
        ticket = dict(name="ticket", sparsity=sparsity, allocation="erk")
        moving = dict(
            name="sparse_training",
            sparsity=sparsity,
            end_step=half * 3 // 2,
            every_steps=2 * every,
        )
        budget = dict(params=round((1 - sparsity) * params))
        stages |= {
            f"one_shot_{share}": dict(more, start_from="half", prune=once),
            f"random_{share}": dict(more, start_from="half", prune=dict(once, score="random")),
            f"gradual_{share}": dict(more, start_from="half", prune=gradual),
            f"uniform_{share}": dict(
                more, start_from="half", prune=dict(gradual, allocation="uniform")
            ),
            f"ticket_{share}": dict(more, start_from="half", prune=ticket),
            f"fresh_{share}": dict(more, start_from="half", prune=dict(ticket, fresh=True)),
            f"tickets_{share}": dict(more, start_from=last, prune=ticket),
            f"rigl_{share}": dict(fresh, steps=2 * half, prune=moving),
            f"cut_{share}": dict(units, model="half", budget=budget),
            f"channels_{share}": dict(more, start_from=f"cut_{share}"),
            f"slim_{share}": dict(
                units, model="half_slim", budget=budget, score="scale", ranking="global"
            ),
            f"slimming_{share}": dict(more, start_from=f"slim_{share}"),
        }
        last = f"tickets_{share}"
    return stages


def _quantization(aware: dict) -> dict:
    """The student in few numbers, and each of them trained on for half as long as the student was.

    * `int8`: weights and activations; `percentile` and `mse` cut the ranges of the activations off,
      `edges` has the first and the last layer in int8, too.
    * `dynamic`: as `int8`, with the ranges of the activations found in each call.
    * `int4`, `ternary`, `binary`: weights alone; `int4_int8` also has int8 activations.
    * `mixed`: weights alone, int8 or int4 by layer, in 60 kB: what does least harm by `bits`, each
      layer's KL divergence from the cached teacher.
    * `float`: the student itself, trained further for as long.
    """
    rules = dict(
        int8=dict(),
        percentile=dict(calibration="percentile", percentile=99.9),
        mse=dict(calibration="mse"),
        edges=dict(float_edges=False),
        dynamic=dict(rules=[dict(activations="dynamic")]),
        int4=dict(rules=[dict(weights="int4", scale="mse", activations=None)]),
        int4_int8=dict(rules=[dict(weights="int4", scale="mse")]),
        ternary=dict(rules=[dict(weights="ternary", activations=None)]),
        binary=dict(rules=[dict(weights="binary", activations=None)]),
        mixed=dict(budget=dict(bytes=60_000), sensitivity="bits"),
    )
    bits = dict(
        kind="sensitivity",
        model="student",
        sparsities=[],
        numbers=[dict(activations=None), dict(weights="int4", scale="mse", activations=None)],
        against="teacher",
        cache="cache",
    )
    stages: dict[str, dict] = dict(float=dict(aware, start_from="student"), bits=bits)
    for name, own in rules.items():
        stages[name] = dict(kind="quantize", model="student", agreement=0.0, **own)
        stages[f"{name}_aware"] = dict(aware, start_from=name)
        # ONNX Runtime has no fast convolution in ranges of the call.
        if name != "dynamic":
            stages[f"{name}_file"] = dict(kind="export", model=f"{name}_aware", formats=["onnx"])
    return stages
