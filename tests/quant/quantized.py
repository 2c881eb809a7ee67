"""A small network quantized, live and as a file."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import quant
from kdjax.export import write_quantized
from kdjax.export.onnx_memory import PRECISE

INT8 = {".*": quant.Rule()}


def lively(module, *inputs, seed=0, **kwargs):
    """Variables with nothing left at zero or one, and layers that keep the size of what comes in."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kwargs))

    def drawn(path, leaf):
        match jax.tree_util.keystr(path[-1:], simple=True):
            case "var" | "scale":
                value = random.uniform(0.5, 1.5, size=leaf.shape)
            case "kernel":
                value = random.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
            case _:
                value = random.normal(size=leaf.shape, scale=0.3)
        return jnp.asarray(np.asarray(value, leaf.dtype))  # converted without a program

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Quantized:
    """A function of variables and one input, with everything that a file of it needs."""

    def __init__(self, function, variables, x, patterns: Mapping[str, Any] = INT8, **calibration):
        self.function, self.variables, self.x = function, variables, x
        self.graph = quant.graph_of(function, variables, x)
        self.rules = quant.choose(patterns, [layer.name for layer in self.graph.layers])
        self.ranges = quant.calibrate(function, variables, [x], rules=self.rules, **calibration)
        self.layers = {layer.name: layer for layer in self.graph.layers}

    @classmethod
    def of(cls, module, x, patterns: Mapping[str, Any] = INT8, **calibration):
        return cls(module.apply, lively(module, x), x, patterns, **calibration)

    def ruled(self, patterns: Mapping[str, Any]) -> "Quantized":
        """The same network under other rules; its float file is made once for all of them."""
        _ = self.float_file
        other = copy.copy(self)
        other.__dict__.pop("_run", None)
        other.rules = quant.choose(patterns, list(self.layers))
        other.ranges = quant.calibrate(self.function, self.variables, [self.x], rules=other.rules)
        return other

    @functools.cached_property
    def _run(self):
        return jax.jit(
            lambda variables, ranges, x: quant.model.run(
                self.function,
                variables,
                x,
                rules=self.rules,
                fake=lambda name, value: quant.fake_activation(value, ranges[name]),
                fake_weights=lambda layer, w, rule: quant.fake_weights(
                    w, rule, channels=layer.channels
                ),
            )
        )

    def live(self, x=None):
        """What the network gives with rounding in it."""
        return np.asarray(self._run(self.variables, self.ranges, self.x if x is None else x))

    @functools.cached_property
    def float_file(self) -> bytes:
        """The network without rounding, in ONNX."""
        import jax2onnx

        with jax.numpy_rank_promotion("allow"):
            model = jax2onnx.to_onnx(
                lambda x: self.function(self.variables, x),
                inputs=[jax.ShapeDtypeStruct(("batch", *self.x.shape[1:]), self.x.dtype)],
                input_names=["x"],
                output_names=["y"],
                opset=21,
            )
        del model.graph.value_info[:]
        return model.SerializeToString()

    def exact(self):
        return np.asarray(jax.jit(self.function)(self.variables, self.x))

    def plan(self):
        return quant.plan_of(
            self.function, self.variables, self.x, rules=self.rules, ranges=self.ranges
        )


class File:
    """The file of a `Quantized` network: what is stored, what ONNX Runtime gives and makes of it."""

    def __init__(self, quantized: Quantized, folder):
        import onnx

        self.source, self.path = folder / "float.onnx", folder / "integers.onnx"
        self.source.write_bytes(quantized.float_file)
        self.plan = quantized.plan()
        self.values = write_quantized(self.source, self.path, self.plan)
        self.graph = onnx.load(self.path).graph
        self.stored = {t.name: onnx.numpy_helper.to_array(t) for t in self.graph.initializer}

    def run(self, x, **options):
        return session(self.path, **options).run(["y"], {"x": np.asarray(x)})[0]


def session(path, optimized=None, level=None):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*PRECISE)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if level is not None:
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
