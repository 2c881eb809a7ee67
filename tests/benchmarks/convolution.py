"""What each rule of `kdjax.models.convolve` costs beside what it replaces. Prints one JSON object.

  python tests/benchmarks/convolution.py
  python tests/benchmarks/convolution.py --only=depthwise

Milliseconds of one convolution, of the gradient of its image and of its kernel, each compiled alone, in
turn with XLA's own; without `--xla` with the flag that the command line sets.
"""

import argparse
import os

import numpy as np
from result import ratios, show

SHAPES = {
    # batch, side, channels, kernel, stride, features, groups
    "stem": (64, 32, 3, 3, 1, 32, 1),
    "32x32": (64, 32, 64, 3, 1, 64, 1),
    "16x16": (64, 16, 128, 3, 1, 128, 1),
    "8x8": (64, 8, 256, 3, 1, 256, 1),
    "32x32 by two": (64, 32, 64, 3, 2, 128, 1),
    "8x8 by two": (64, 8, 256, 3, 2, 512, 1),
    "1x1": (64, 16, 96, 1, 1, 192, 1),
    "4x4": (64, 4, 512, 3, 1, 512, 1),
    "2x2": (256, 2, 128, 3, 1, 256, 1),
    "patches": (64, 32, 3, 4, 4, 192, 1),
    "depthwise 16x16": (64, 16, 96, 3, 1, 96, 96),
    "depthwise 4x4": (64, 4, 240, 5, 1, 240, 240),
    "depthwise by two": (64, 16, 96, 5, 2, 96, 96),
}


def calls(shape: tuple[int, ...]):
    import jax
    import jax.numpy as jnp
    from jax import lax

    from kdjax.models import convolve

    batch, side, channels, taps, stride, features, groups = shape
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(batch, side, side, channels)), jnp.float32)
    kernel = jnp.asarray(
        random.normal(size=(taps, taps, channels // groups, features)), jnp.float32
    )
    pad = [(0, 0)] * 2 if taps == stride else [(taps // 2, taps // 2)] * 2
    found = {}
    for name, conv in (("xla", lax.conv_general_dilated), ("kdjax", convolve)):

        def out(x, kernel, conv=conv):
            return conv(
                x,
                kernel,
                (stride, stride),
                pad,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )

        g = jax.jit(out)(x, kernel)

        def of_image(x, kernel, g, out=out):
            return jax.vjp(lambda x: out(x, kernel), x)[1](g)[0]

        def of_kernel(x, kernel, g, out=out):
            return jax.vjp(lambda kernel: out(x, kernel), kernel)[1](g)[0]

        def call(f, *arrays):
            compiled = jax.jit(f).lower(*arrays).compile()
            return lambda: compiled(*arrays)

        found["forward", name] = call(out, x, kernel)
        found["of the image", name] = call(of_image, x, kernel, g)
        found["of the kernel", name] = call(of_kernel, x, kernel, g)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="shapes whose names hold this")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--xla", action="store_true", help="without the flag of XLA")
    args = parser.parse_args()
    from kdjax import evaluate
    from kdjax import main as command

    if not args.xla:
        os.environ.setdefault("XLA_FLAGS", command.EIGEN)
    results = {}
    for name, shape in SHAPES.items():
        if args.only not in name:
            continue
        made = calls(shape)
        for part in ("forward", "of the image", "of the kernel"):
            both = {way: made[part, way] for way in ("xla", "kdjax")}
            times = evaluate.interleaved(both, warmup=2, repeats=args.repeats, max_seconds=20.0)
            results[f"{name}, {part}"] = ratios(times, "xla")
    show({"shapes": {name: SHAPES[name] for name in SHAPES if args.only in name}, **results})


if __name__ == "__main__":
    main()
