"""An LSTM in ONNX files: one operator, the loop that jax2onnx writes, and integers. Prints JSON.

  python tests/benchmarks/recurrent.py      100 steps, batch 1, one thread; as many units as inputs

Each file is called in turn with the others; all are of the same parameters. `apart` is the largest
difference from what jax gives in float.
"""

import argparse
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from result import ratios, show

from kdjax import evaluate, models, quant
from kdjax.export import load_onnx, onnx_call, write_onnx
from kdjax.export.converters import jax2onnx
from kdjax.export.onnx_integers import write_quantized
from kdjax.types import Field

LOOP, WHOLE, INT8 = "a loop", "one operator", "int8 in the call"


def loop(parameters, x):
    """What the layer computes, as jax alone would have it."""
    kernel, recurrent, bias = (parameters[name] for name in ("kernel", "recurrent", "bias"))

    def step(state, x):
        hidden, cell = state
        gates = jnp.einsum("bf,fgh->bgh", x, kernel) + jnp.einsum("bh,hgk->bgk", hidden, recurrent)
        i, f, g, o = (gates[:, k] + bias[None, k] for k in range(4))
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    start = jnp.zeros((x.shape[0], recurrent.shape[0]))
    return lax.scan(step, (start, start), x.swapaxes(0, 1))[1].swapaxes(0, 1)


def measured(width: int, *, steps: int, repeats: int) -> dict[str, Any]:
    """Bytes, differences and times of a layer with so many inputs and units."""
    layer = models.LSTM(width)
    x = np.random.default_rng(0).normal(size=(1, steps, width)).astype(np.float32)
    variables = layer.init(jax.random.key(0), jnp.asarray(x))

    def forward(variables, x):
        return layer.apply(variables, x)[0]

    live = np.asarray(forward(variables, jnp.asarray(x)))
    fields = {"x": Field(x.shape[1:], "float32")}
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            name: pathlib.Path(folder) / f"{i}.onnx"
            for i, name in enumerate((LOOP, WHOLE, INT8, "int8 weights"))
        }
        loops = jax2onnx().to_onnx(
            lambda x: loop(variables["params"], x),
            inputs=[jax.ShapeDtypeStruct(x.shape, jnp.float32)],
            input_names=["x"],
            output_names=["y"],
            model_name="loop",
            opset=21,
        )
        paths[LOOP].write_bytes(loops.SerializeToString())
        write_onnx(lambda x: forward(variables, x), paths[WHOLE], inputs=fields)
        for name, activations in ((INT8, "dynamic"), ("int8 weights", None)):
            rules = {
                parameter: quant.Rule(activations=activations)
                for parameter in ("kernel", "recurrent")
            }
            plan = quant.plan_of(forward, variables, jnp.asarray(x), rules=rules, ranges={})
            write_quantized(paths[WHOLE], paths[name], plan)
        apart = {
            name: float(np.abs(load_onnx(path, threads=1)(x) - live).max())
            for name, path in paths.items()
        }
        calls = {name: onnx_call(path, threads=1, batch=1) for name, path in paths.items()}
        times = evaluate.interleaved(calls, repeats=repeats)
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    found = ratios(times, WHOLE)
    return {
        "units": width,
        "times_the_loop": found["ratio"][LOOP],
        "times_float": 1.0 / found["ratio"][INT8],
        "bytes_of_float": sizes[INT8] / sizes[WHOLE],
        "bytes": sizes,
        "apart": apart,
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--widths", default="32,64,128,256")
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    widths = [int(width) for width in args.widths.split(",")]
    how = {"steps": args.steps, "repeats": args.repeats}
    show({"steps": args.steps, "layers": [measured(width, **how) for width in widths]})


if __name__ == "__main__":
    main()
