"""One of several processes that train together, of which the last one alone gets SIGTERM; then again.

python one_stopped.py PORT PROCESSES INDEX FOLDER
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import optax

port, processes, index, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", processes, index, initialization_timeout=120)

from kdjax import train  # noqa: E402
from kdjax.train import interruption  # noqa: E402

STOP, AT = 40, 10
parallel, tx = train.choose("pmap"), optax.sgd(1.0)


def product(params, state, batch, key):
    loss = params["w"] * batch["value"].mean()
    return loss, (state.model_state, {"loss/product": loss})


step = train.make_train_step(product, tx, axis_name=parallel.axis_name)
run_steps = parallel.compile(train.make_run_steps(lambda resident, feed, key: feed, step))


def ran(*, asked: bool) -> train.TrainState:
    fresh = train.TrainState.start({"params": {"w": np.float32(100)}}, tx)
    checkpoints = train.Checkpoints(folder / "checkpoints")
    state = checkpoints.latest(parallel.replicate(fresh))
    begun = int(state.step)

    def feeds():
        for i in range(begun, STOP):
            if asked and i == AT and index == processes - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield i + 1, {"value": np.full((1, 2), i % 5, np.float32)}

    recorder = train.Recorder(
        folder / f"log{index}",
        name="r",
        start=begun,
        stop=STOP,
        log_every_steps=3,
        kept=checkpoints.record,
    )
    with checkpoints, recorder:
        return train.train(
            state,
            run_steps=run_steps,
            resident={},
            feeds=feeds(),
            key=parallel.replicate(jax.random.key(0)),
            parallel=parallel,
            recorder=recorder,
            checkpoints=checkpoints,
            checkpoint_every_steps=1000,
            stop=STOP,
        )


code = 0
with interruption.watched():
    try:
        ran(asked=True)
    except train.Interrupted as error:
        code = error.code
(kept,) = train.Checkpoints(folder / "checkpoints", reads_only=True).steps()
state = ran(asked=False)
found = {"code": code, "kept": kept, "step": int(state.step), "w": float(state.params["w"])}
(folder / f"stopped{index}.json").write_text(json.dumps(found))
jax.distributed.shutdown()
