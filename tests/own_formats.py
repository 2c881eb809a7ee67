"""Formats that a user may bring: parameters in an .npz, run by NumPy alone."""

import flax.linen as nn
import numpy as np

from kdjax.export import Runtime

ALLOWED = 0.0


class Linear(nn.Module):
    """An encoder of one matrix."""

    width: int

    @nn.compact
    def __call__(self, image, *, train):
        """Features [batch, width]."""
        return nn.relu(nn.Dense(self.width)(image.reshape(image.shape[0], -1)))


class Npz(Runtime):
    """The parameters of a model of `Linear`, and how its image is normalised."""

    suffix = ".npz"
    takes_threads = False

    def __init__(self, *, packed: bool = False):
        self.packed = packed

    def write(self, model, path):
        """Names and arrays."""
        params, image = model.variables["params"], model.inputs.only_image("an .npz file")
        hidden, head = params["encoder"]["Dense_0"], params["classifier"]
        save = np.savez_compressed if self.packed else np.savez
        arrays = {
            "mean": np.float32(image.mean),
            "std": np.float32(image.std),
            "w0": hidden["kernel"],
            "b0": hidden["bias"],
            "w1": head["kernel"],
            "b1": head["bias"],
        }
        with open(path, "wb") as file:
            save(file, **arrays)

    def load(self, path, *, threads):
        """Two products."""
        with np.load(path) as file:
            own = {name: file[name] for name in file.files}

        def run(image):
            x = (image.astype(np.float32) / 255 - own["mean"]) / own["std"]
            x = np.maximum(x.reshape(len(x), -1) @ own["w0"] + own["b0"], ALLOWED)
            return x @ own["w1"] + own["b1"]

        return run


class Wrong(Npz):
    """Another bias."""

    suffix = ".wrong"

    def load(self, path, *, threads):
        """Off by one."""
        run = super().load(path, threads=threads)
        return lambda image: run(image) + 1.0
