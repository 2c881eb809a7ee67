"""Training steps in PyTorch and here, in turn on the same cores. Prints one JSON object.

  pip install torch==2.13.0            which nothing else here needs
  python tests/benchmarks/torch_side_by_side.py
  python tests/benchmarks/torch_side_by_side.py --rows=kd_cached,simclr_16 --ways=torch,kdjax

Rows, all on random images of 32x32 in float32:

    kd_live, kd_cached     ResNet32x4 -> ResNet8x4, batch 64: the teacher in the step; its logits given
    simclr_64, simclr_16   ResNet-18 of that width, batch 64 and 128, two views drawn in the step
    mobilenet_v3, vit      classifiers: small, batch 64; 192 wide, 6 blocks, patches of 4, batch 128
    accumulated            the student of kd_cached on its labels, batch 256 in four parts, for 4
    dispatched             the same as kd_cached, four steps of batch 64 in one dispatch, for 4

Ways: `torch`, eager and channels last; `torch_compile`; `kdjax`, as the command line runs it; `glibc`,
the same without `kdjax.heap`, so that freed memory goes back to the kernel; `xla`, as `glibc`, but with
`convolutions="xla"` and without the flag of XLA that the command line sets. Each way is a process of its
own with two threads, which waits while another one works. A figure is the median of the rounds; its
spread the 10th and the 90th percentile; `ratio` the median over the rounds of the time divided by that of
`torch` in the same round, or by four steps of the same way for `accumulated` and `dispatched`.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROWS = ("kd_live", "kd_cached", "simclr_64", "simclr_16", "mobilenet_v3", "vit",
        "accumulated", "dispatched")  # fmt: skip
ALONE = ("accumulated", "dispatched")
"""Which are measured against four single steps of the same way."""

WAYS = ("torch", "torch_compile", "kdjax", "glibc", "xla")


def kdjax_step(row: str, convolutions: str) -> Callable[[], Any]:
    """One step of a row, with its draw, its forward and backward pass and its update."""
    import jax
    import jax.numpy as jnp

    from kdjax import config, data, models, ssl, tasks, teacher, train
    from kdjax.artifacts.model import Spec
    from kdjax.config.encoders.mobilenet import MobileNetV3
    from kdjax.config.encoders.resnet import CifarResNet, ResNet18
    from kdjax.config.encoders.vit import ViT
    from kdjax.config.views.simclr import SimCLRViews
    from kdjax.contexts import build
    from kdjax.inputs import Inputs
    from kdjax.stages import distill, finetune
    from kdjax.views import draws

    random = np.random.default_rng(0)
    batch = {"simclr_16": 128, "vit": 128, "accumulated": 256}.get(row, 64)
    several = 4 if row == "dispatched" else 1
    dataset = data.from_arrays(
        random.integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8),
        np.arange(batch) % 100,
        classes=100,
    )

    def spec(encoder: config.Encoder) -> Spec:
        return Spec(encoder=encoder, inputs=Inputs.of(dataset.fields), task=tasks.of(dataset))

    student = spec(CifarResNet(name="cifar_resnet", depth=8, multiplier=4))
    given = jnp.asarray(random.normal(size=(batch, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(np.arange(batch) % 100, jnp.int32)
    fixed = {"inputs": given, "label": labels}
    resident: Any = {"fixed": fixed}

    def draw(resident, row, key):
        return resident["fixed"]

    variables = student.init(jax.random.key(0))
    if row.startswith("simclr"):
        width = int(row.removeprefix("simclr_"))
        encoder = ResNet18(name="resnet18", width=width).module(models.Compute())
        model = models.EncoderProjector(encoder, models.Projector((128, 64)))
        variables = model.init(jax.random.key(0), given[:1], train=True)
        objective = ssl.simclr(model, temperature=0.5).objective()
        recipe = SimCLRViews(recipe="simclr").recipe_for(student.inputs)
        views = draws.two_views(recipe, "pretrain")
        resident = data.resident_arrays(dataset)

        def draw(resident, row, key):
            return views(data.take(resident, row), resident, key)

    elif row in ("mobilenet_v3", "vit"):
        encoder = {
            "mobilenet_v3": MobileNetV3(name="mobilenet_v3", size="small"),
            "vit": ViT(name="vit", width=192, depth=6, heads=3, mlp=768, patch=4),
        }[row]
        chosen = spec(encoder)
        variables = chosen.init(jax.random.key(0))
        objective = finetune.objective(chosen.module(), chosen.task.terms())
    elif row == "accumulated":
        objective = finetune.objective(student.module(), student.task.terms())
    else:
        signal = teacher.Logits(classes=100)
        objective = distill.objective(
            student.module(),
            student.task,
            signal=signal,
            temperature=4.0,
            kd_weight=0.9,
            ce_weight=0.1,
        )
        said = signal.encode(jnp.asarray(random.normal(size=(batch, 100)), jnp.float32))
        resident = {"fixed": {**fixed, **said}}
        if row == "kd_live":
            large = spec(CifarResNet(name="cifar_resnet", depth=32, multiplier=4))
            resident = {"fixed": fixed, "teacher": large.init(jax.random.key(1))}

            def draw(resident, row, key):
                asked = large.answers(large.module())(
                    resident["teacher"], resident["fixed"]["inputs"]
                )
                return {**resident["fixed"], **signal.encode(asked)}

    tx = build.optimizers.sgd(
        lambda step: 1e-3, momentum=0.9, nesterov=False, weight_decay=5e-4, decayed=".*"
    )
    parallel = train.choose("single", convolutions=convolutions)
    step = train.make_train_step(objective, tx, accumulate=4 if row == "accumulated" else 1)
    run_steps = parallel.compile(train.make_run_steps(draw, step))
    held = [train.TrainState.start(jax.tree.map(jnp.copy, variables), tx)]
    feed = {
        "row": np.tile(np.arange(batch, dtype=np.int32), (several, 1)),
        "epoch": np.zeros((several, batch), np.uint32),
    }
    resident, feed = parallel.replicate(resident), parallel.feed(feed)

    def call() -> None:
        held[0], metrics = run_steps(held[0], resident, feed, jax.random.key(0))
        jax.block_until_ready((held[0], metrics))

    return call


def work(way: str) -> None:
    """A worker: `make ROW` builds a step and runs it twice, `call` answers its milliseconds."""
    call: Callable[[], Any] | None = None
    for line in sys.stdin:
        verb, _, row = line.strip().partition(" ")
        if verb == "make":
            call = None
            if way.startswith("torch"):
                import in_torch

                call = in_torch.step(row, compiled=way == "torch_compile")
            else:
                call = kdjax_step(row, "xla" if way == "xla" else "auto")
            call()
        assert call is not None
        start = time.perf_counter()
        call()
        print(f"ms {1e3 * (time.perf_counter() - start):.3f}", flush=True)


@contextmanager
def workers(ways: list[str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    from kdjax import main

    found = {}
    for way in ways:
        flags = {"XLA_FLAGS": main.EIGEN} if way in ("kdjax", "glibc") else {}
        found[way] = subprocess.Popen(
            [sys.executable, __file__, f"--worker={way}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **flags, "JAX_PLATFORMS": "cpu"},
            cwd=Path(__file__).parent,
        )
    try:
        yield found
    finally:
        for worker in found.values():
            worker.kill()


def ask(worker: subprocess.Popen[str], line: str) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(line, file=worker.stdin, flush=True)
    for answer in worker.stdout:
        if answer.startswith("ms "):
            return float(answer.split()[1])
    raise SystemExit(f"{line}: a worker has ended")


def rounds(ways: list[str], rows: dict[str, str], repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds `[repeats]` of each way that is listed for a row, in turn."""
    with workers(ways) as by_way:
        for way in ways:
            ask(by_way[way], f"make {rows[way]}")
        times: dict[str, list[float]] = {way: [] for way in ways}
        for i in range(repeats + 1):
            for way in ways:
                ms = ask(by_way[way], "call")
                if i:
                    times[way].append(ms)
    return {way: np.asarray(found) for way, found in times.items()}


def summary(times: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    low, middle, high = np.percentile(times, (10, 50, 90))
    return {
        "ms": round(float(middle), 2),
        "spread": [round(float(low), 2), round(float(high), 2)],
        "ratio": round(float(np.median(times / base)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "kdjax":
            from kdjax import heap

            heap.keep()
        work(args.worker)
        return
    from result import show

    ways, results = args.ways.split(","), {}
    for row in args.rows.split(","):
        if row not in ALONE:
            times = rounds(ways, dict.fromkeys(ways, row), args.repeats)
            base = times["torch" if "torch" in ways else ways[0]]
            results[row] = {way: summary(found, base) for way, found in times.items()}
        else:
            of_four = "kd_cached"
            results[row] = {}
            for way in ways:
                if not way.startswith("torch"):
                    results[row][way] = against_four(way, row, of_four, args.repeats)
        print(row, results[row], file=sys.stderr, flush=True)
    show({"repeats": args.repeats, "rows": results})


def against_four(way: str, row: str, single: str, repeats: int) -> dict[str, Any]:
    """A row and four single steps of one way, in turn."""
    with workers([way]) as one, workers([way]) as other:
        ask(one[way], f"make {row}")
        ask(other[way], f"make {single}")
        times, base = [], []
        for i in range(repeats + 1):
            ms, four = ask(one[way], "call"), sum(ask(other[way], "call") for _ in range(4))
            if i:
                times.append(ms)
                base.append(four)
    return summary(np.asarray(times), np.asarray(base))


if __name__ == "__main__":
    main()
