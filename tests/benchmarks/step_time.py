"""What a train step costs, as ratios measured in one interleaved run. Prints one JSON object.

  python tests/benchmarks/step_time.py                  the digits pair, seconds on two CPU cores
  python tests/benchmarks/step_time.py --pair=cifar     ResNet32x4 -> ResNet8x4 on 32x32, for a GPU

`distillation`: the student alone (cross-entropy), the same student with signals from the cache (all
logits, and the top 10 with their tail), and with the teacher called in the step. `streaming`: the loop
itself fed from outside the device, alone, and with a cache on disk. `sweep`: four students in one step,
against four steps. `simclr`: the step that draws its two views on the device, the same step
with the views made by a call of their own before it, and fed with views that cost nothing.
"""

import argparse
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from result import ratios, show

from kdjax import config, data, evaluate, models, ssl, tasks, teacher, train
from kdjax.artifacts.model import Spec
from kdjax.config.encoders.cnn import CNN
from kdjax.config.encoders.resnet import CifarResNet
from kdjax.config.views.crop_flip import CropFlipViews
from kdjax.config.views.simclr import SimCLRViews
from kdjax.contexts import build
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.stages import distill, finetune
from kdjax.teacher_targets.source import see
from kdjax.teacher_targets.targets import taught_views
from kdjax.views import draws

PAIRS = {
    "digits": (
        CNN(name="cnn", widths=(32, 64, 128, 256)),
        CNN(name="cnn", widths=(16, 32, 64, 64)),
        8,
        1,
        10,
        256,
    ),
    "cifar": (
        CifarResNet(name="cifar_resnet", depth=32, multiplier=4),
        CifarResNet(name="cifar_resnet", depth=8, multiplier=4),
        32,
        3,
        100,
        64,
    ),
}
"""Teacher, student, side, channels, classes, batch."""

_VIEWS = CropFlipViews(recipe="crop_flip")
_LOOP_STEPS = 10
_CONTRAST = SimCLRViews(recipe="simclr")


def spec_of(encoder: config.Encoder, dataset: Dataset) -> Spec:
    """A model of the inputs and the classes of a dataset."""
    return Spec(encoder=encoder, inputs=Inputs.of(dataset.fields), task=tasks.of(dataset))


def sgd():
    return build.optimizers.sgd(
        lambda step: 1e-3, momentum=0.9, nesterov=False, weight_decay=5e-4, decayed=".*"
    )


def _runner(objective, draw, variables, resident, feed):
    """A call that makes one step and waits for it; the state goes on from call to call."""
    tx = sgd()
    state = train.TrainState.start(jax.tree.map(jnp.copy, variables), tx)
    return steps(train.make_train_step(objective, tx), draw, state, resident, feed)


def steps(step, draw, state, resident, feed):
    parallel = train.choose("single")
    run_steps = parallel.compile(
        train.make_run_steps(
            lambda resident, feed, key: draw(data.take(resident, feed), resident, key), step
        )
    )
    held = [state]
    resident, feed = parallel.replicate(resident), parallel.feed(feed)
    key = jax.random.key(0)

    def call():
        held[0], metrics = run_steps(held[0], resident, feed, key)
        return metrics

    return call


def distillation(teacher_spec: Spec, student: Spec, dataset: Dataset, batch: int):
    """The steps on one batch: alone, with each kind of cached signal, with the teacher in the step."""
    recipe = _VIEWS.recipe_for(student.inputs)
    feed = {
        "row": np.arange(batch, dtype=np.int32)[None],
        "epoch": np.zeros((1, batch), np.uint32),
    }
    resident, variables = data.resident_arrays(dataset), student.init(jax.random.key(0))
    live = teacher_spec.init(jax.random.key(1))
    calls = {
        "student_only": _runner(
            finetune.objective(student.module(), student.task.terms()),
            finetune.fresh_view(recipe, "cache"),
            variables,
            resident,
            feed,
        )
    }
    drawn = see(recipe, "cache")
    for name, signal in _signals(student).items():
        calls[f"cached_{name}"] = _runner(
            _kd(student, signal),
            taught_views(drawn, signal.parts(), count=1),
            variables,
            {**resident, "signal": _said(signal, len(dataset))},
            feed,
        )

    signal = teacher.Logits(classes=student.task.outputs)

    def ask(variables, batch, key):
        answer = teacher_spec.answers(teacher_spec.module())
        return signal.encode(answer(variables, drawn(batch, key)[0]))

    calls["live_logits"] = _runner(
        _kd(student, signal),
        taught_views(drawn, signal.parts(), count=1, ask=ask),
        variables,
        {**resident, "teachers": live},
        feed,
    )
    return calls


def _signals(student: Spec) -> dict[str, teacher.Signal]:
    return {
        "logits": teacher.Logits(classes=student.task.outputs),
        "top_k": teacher.TopK(
            classes=student.task.outputs, k=min(10, student.task.outputs - 1), temperatures=(4.0,)
        ),
    }


def _said(signal: teacher.Signal, examples: int) -> dict[str, np.ndarray]:
    """What a teacher might say of one view of each example, [1, examples, ...]."""
    made_up = np.random.default_rng(0).normal(scale=3.0, size=(examples, signal.classes))
    parts = signal.encode(jnp.asarray(made_up, jnp.float32))
    return {name: np.asarray(values)[None] for name, values in parts.items()}


def _kd(student: Spec, signal: teacher.Signal, **settings):
    settings = {"temperature": 4.0, "kd_weight": 0.9, "ce_weight": 0.1, **settings}
    return distill.objective(student.module(), student.task, signal=signal, **settings)


def streaming(student: Spec, dataset: Dataset, batch: int, folder: str):
    """The loop itself, several steps a call, fed from outside: alone, and with a cache on disk."""
    recipe = _VIEWS.recipe_for(student.inputs)
    signal, n = _signals(student)["top_k"], len(dataset)
    said = {name: values[0] for name, values in _said(signal, n).items()}
    teacher.write(
        folder,
        ids=dataset.ids,
        views=2,
        signal=signal,
        ask=lambda rows, view: {name: values[rows] for name, values in said.items()},
        batch=n,
        binding={},
    )
    cache = teacher.TeacherCache.open(folder, expected={})

    at = cache.reader(dataset.ids)

    def join(rows, epochs):
        return at(rows, epochs % np.uint32(cache.views))

    drawn = see(recipe, "cache")
    return {
        "student_streamed": _loop(
            finetune.objective(student.module(), student.task.terms()),
            finetune.fresh_view(recipe, "cache"),
            student,
            dataset,
            batch,
        ),
        "cached_streamed": _loop(
            _kd(student, signal),
            taught_views(drawn, cache.parts, count=cache.views),
            student,
            dataset,
            batch,
            join=join,
        ),
    }


def _loop(objective, draw, student: Spec, dataset: Dataset, batch: int, **join):
    """A call that trains for some steps as a stage does, and goes on in the next call."""
    parallel, tx = train.choose("single"), sgd()
    run_steps = parallel.compile(
        train.make_run_steps(
            lambda resident, feed, key: draw(data.take(resident, feed), resident, key),
            train.make_train_step(objective, tx),
        )
    )
    state = [train.TrainState.start(student.init(jax.random.key(0)), tx)]
    scratch = tempfile.mkdtemp()

    def call():
        start = int(state[0].step)
        stop = start + _LOOP_STEPS
        where = {"seed": 0, "batch": batch, "share": slice(0, batch), "dispatch_steps": 1}
        recorder = train.Recorder(
            scratch, name="", start=start, stop=stop, log_every_steps=_LOOP_STEPS
        )
        state[0] = train.train(
            state[0],
            run_steps=run_steps,
            resident={},
            feeds=data.stream_feeds(dataset, start=start, stop=stop, **where, **join),
            key=jax.random.key(0),
            parallel=parallel,
            recorder=recorder,
            checkpoint_every_steps=10**9,
            stop=stop,
        )
        recorder.close()
        return state[0].step

    return call


def sweep(student: Spec, dataset: Dataset, batch: int):
    """Four students in one step, both ways, and one after the other in four steps."""
    recipe, signal = _VIEWS.recipe_for(student.inputs), _signals(student)["logits"]
    draw = taught_views(see(recipe, "cache"), signal.parts(), count=1)
    resident = {**data.resident_arrays(dataset), "signal": _said(signal, len(dataset))}
    feed = {
        "row": np.arange(batch, dtype=np.int32)[None],
        "epoch": np.zeros((1, batch), np.uint32),
    }
    temperatures, variables = [1.0, 2.0, 4.0, 8.0], student.init(jax.random.key(0))
    alone = [
        _runner(_kd(student, signal, temperature=t), draw, variables, resident, feed)
        for t in temperatures
    ]
    settings = {"temperature": np.asarray(temperatures, np.float32)}

    def together(unroll: bool):
        tx = sgd()
        students = train.Sweep(lambda mine: _kd(student, signal, **mine), settings, unroll)
        step = train.make_sweep_step(students, lambda o: train.make_train_step(o, tx))
        state = train.start_sweep(variables, tx, students=students.students, ema=False)
        return steps(step, draw, state, resident, feed)

    return {
        "one_after_the_other": lambda: [call() for call in alone],
        "sweep_unrolled": together(unroll=True),
        "sweep_vmapped": together(unroll=False),
    }


def simclr(encoder: Spec, dataset: Dataset, batch: int):
    """The step with its views on the device, against views made outside of it."""
    model = models.EncoderProjector(
        encoder.encoder.module(models.Compute()), models.Projector((128, 64))
    )
    recipe = _CONTRAST.recipe_for(encoder.inputs)
    draw = draws.two_views(recipe, "pretrain")
    objective = ssl.simclr(model, temperature=0.5).objective()
    variables = model.init(jax.random.key(0), encoder.blank(), train=True)
    resident = data.resident_arrays(dataset)
    feed = {
        "row": np.arange(batch, dtype=np.int32)[None],
        "epoch": np.zeros((1, batch), np.uint32),
    }
    outside = jax.jit(
        lambda key: draw(data.take(resident, {k: v[0] for k, v in feed.items()}), {}, key)
    )
    ready = jax.device_get(outside(jax.random.key(0)))

    def fed(batch, resident, key):
        return batch

    given = jax.tree.map(lambda values: values[None], ready)
    step = _runner(objective, fed, variables, {}, given)

    def two_calls():
        jax.block_until_ready(outside(jax.random.key(0)))
        return step()

    return {
        "views_in_the_step": _runner(objective, draw, variables, resident, feed),
        "views_made_outside": two_calls,
        "views_for_nothing": _runner(objective, fed, variables, {}, given),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pair", choices=PAIRS, default="digits")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--max_seconds", type=float, default=120.0, help="of one part")
    parser.add_argument("--parts", default="distillation,streaming,sweep,simclr")
    args = parser.parse_args()
    teacher_config, student_config, side, channels, classes, batch = PAIRS[args.pair]
    random = np.random.default_rng(0)
    dataset = data.from_arrays(
        random.integers(0, 256, (4 * batch, side, side, channels), dtype=np.uint8),
        random.integers(0, classes, 4 * batch),
        classes=classes,
    )
    asked, student = spec_of(teacher_config, dataset), spec_of(student_config, dataset)
    parts = {
        "distillation": (lambda: distillation(asked, student, dataset, batch), "student_only"),
        "streaming": (
            lambda: streaming(student, dataset, batch, f"{tempfile.mkdtemp()}/cache"),
            "student_streamed",
        ),
        "sweep": (lambda: sweep(student, dataset, batch), "one_after_the_other"),
        "simclr": (lambda: simclr(asked, dataset, batch), "views_for_nothing"),
    }
    results = {}
    for name in args.parts.split(","):
        make, base = parts[name]
        times = evaluate.interleaved(make(), repeats=args.repeats, max_seconds=args.max_seconds)
        results[name] = ratios(times, base)
        if name == "simclr":
            p50 = results[name]["ms_p50"]
            results[name]["images_per_second"] = {c: batch / ms * 1e3 for c, ms in p50.items()}
    show({"pair": args.pair, "batch": batch, **results})


if __name__ == "__main__":
    main()
