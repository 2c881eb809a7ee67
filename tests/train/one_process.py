"""One of several processes that train together; what it ends with goes to a file of its own.

python one_process.py PORT PROCESSES INDEX FOLDER
"""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

port, processes, index, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8 // processes)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.distributed.initialize(f"localhost:{port}", processes, index, initialization_timeout=60)

from kdjax import train, tree  # noqa: E402
from kdjax.types import BadInput  # noqa: E402
from tests import runs  # noqa: E402

assert jax.device_count() == 8
assert train.rows_of_process(64) == slice(32 * index, 32 * index + 32)
with pytest.raises(BadInput, match="2 models, one a process"):
    train.choose("single")

recorder = train.Recorder(folder / f"record{index}", name="r", start=0, stop=1, log_every_steps=1)
recorder.write(1, {"loss": np.ones(1)})
with pytest.raises(train.Diverged):  # every process looks, the first one writes
    recorder.write(2, {"loss": np.full(1, np.nan)})
recorder.close()

# The first writes and all read, each by itself.
weights = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}
train.save_tree(folder / "weights", weights)
if index == 1:
    found = train.load_tree(folder / "weights", weights)
    np.testing.assert_array_equal(found["kernel"], weights["kernel"])

found = {}
for name, way in (("simclr", "pmap"), ("distillation", "mesh")):
    kept = folder / f"{name}-{way}"
    first = runs.fit(name, way, steps=2, folder=kept)
    then = runs.fit(name, way, steps=3, folder=kept)
    assert (len(first.states), len(then.states)) == (2, 1)
    assert len(set(first.traces + then.traces)) == 1, "traced again"
    losses = {k: np.concatenate([first.metrics[k], then.metrics[k]]) for k in first.metrics}
    for leaf, value in tree.named_leaves({"metrics": losses, "state": then.states[-1]}).items():
        found[f"{name}-{way}:{leaf}"] = value
np.savez(folder / f"found{index}.npz", **found)

# On from where one process of eight devices was stopped.
found = {}
for name, way in (("simclr", "pmap"), ("distillation", "mesh")):
    resumed = runs.fit(name, way, steps=4, folder=folder / f"stopped-{name}-{way}")
    assert len(resumed.states) == 2
    for leaf, values in {**resumed.metrics, **runs.seen(name, way, start=2, stop=4)}.items():
        found[f"{name}-{way}:{leaf}"] = values
np.savez(folder / f"resumed{index}.npz", **found)
jax.distributed.shutdown()
