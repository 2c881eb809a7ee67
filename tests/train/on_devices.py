"""A run that was stopped elsewhere, gone on with on so many devices; see `test_devices`.

python on_devices.py DEVICES FOLDER
"""

import sys
from pathlib import Path

import jax
import numpy as np

devices, folder = int(sys.argv[1]), Path(sys.argv[2])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", devices)
jax.config.update("jax_numpy_rank_promotion", "raise")

from tests import runs  # noqa: E402

assert jax.device_count() == devices
found = {}
for case in sorted(folder.iterdir()):
    name, way = case.name.split("-")
    resumed = runs.fit(name, way, steps=4, folder=case)
    assert len(resumed.states) == 2
    sums = runs.seen(name, way, start=2, stop=4)
    for leaf, values in {**resumed.metrics, **sums}.items():
        found[f"{case.name}:{leaf}"] = values
np.savez(folder / "found.npz", **found)
