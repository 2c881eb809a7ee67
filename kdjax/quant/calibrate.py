"""The range of each activation, from what real examples make of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from kdjax.quant.fake_quant import TOP
from kdjax.quant.model import SMOOTH, run
from kdjax.quant.rules import Rule
from kdjax.quant.smooth import divisors
from kdjax.types import BadInput, Variables

Method = Literal["minmax", "percentile", "mse"]
BINS = 2048


def check_percentile(percentile: float) -> None:
    """Raises `BadInput` unless `percentile` is in (50, 100]."""
    if not 50 < percentile <= 100:
        raise BadInput("percentile", f"{percentile} is not in (50, 100]")


def calibrate(
    function: Callable[..., Any],
    variables: Variables,
    batches: Iterable[Any],
    *,
    rules: Mapping[str, Rule],
    method: Method = "minmax",
    percentile: float = 99.99,
) -> dict[str, Float32[np.ndarray, "..."]]:
    """What `ranges` of a `Quantized` model are: `{tensor: [low, high]}`, weights rounded already.

    And the divisors of layers that have some, see `kdjax.quant.smooth`.

    * `minmax`: all that was seen.
    * `percentile`: but for the same share of the smallest and of the largest values.
    * `mse`: the narrower range, by one factor at both ends, with the least squared error of rounding
      and clipping together; the first-order form of Banner et al. 2018,
      https://arxiv.org/abs/1810.05723, over a histogram.

    Args:
      function: `(variables, batch) -> outputs`, the model in evaluation, BatchNorm folded.
      variables: of it, without ranges.
      batches: one or more, of one shape; they are gone through once, or twice if the method is not
        `minmax`.
      rules: by the name of the layer's parameter.
      method: see above.
      percentile: in (50, 100].

    Raises:
      BadInput: there is no batch, the percentile is out of range, or an activation is not finite.
    """
    check_percentile(percentile)
    batches = list(batches)
    if not batches:
        raise BadInput("calibration_examples", "quantization needs at least one example, found 0")
    smooth = divisors(function, variables, batches, rules=rules)
    ends = jax.jit(
        lambda variables, batch: _look(_ends, function, variables, batch, rules, {}, smooth)
    )
    seen = [jax.device_get(ends(variables, batch)) for batch in batches]
    ranges = {
        name: _pair(min(s[name][0] for s in seen), max(s[name][1] for s in seen))
        for name in seen[0]
    }
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high)):
            raise BadInput(
                "calibration",
                f"{name} is not finite on the examples ({low} to {high}): it has no range",
            )
    if method == "minmax":
        return {**ranges, **smooth}
    count = jax.jit(
        lambda variables, batch: _look(
            _histogram, function, variables, batch, rules, ranges, smooth
        )
    )
    sums = {name: np.zeros(BINS) for name in ranges}
    for batch in batches:
        for name, found in jax.device_get(count(variables, batch)).items():
            sums[name] += found
    narrow = _least_error if method == "mse" else lambda c, r: _percentile(c, r, percentile)
    return {**{name: narrow(sums[name], ranges[name]) for name in ranges}, **smooth}


def constant(ranges: Mapping[str, Float[Any, "..."]]) -> dict[str, float]:
    """The activations that were one number on all examples, which it is: a dead rectification's is 0.

    The scale of one that was always 0 is 1, so whatever it is later is rounded to whole numbers.
    """
    found = {name: ends for name, ends in ranges.items() if not name.endswith(SMOOTH)}
    return {name: float(low) for name, (low, high) in found.items() if low == high}


def _look(what, function, variables, batch, rules, ranges, smooth) -> dict[str, Array]:
    """What is noted of each activation that would be quantized, in one forward pass."""
    noted: dict[str, Array] = {}

    def note(name: str, value: Array) -> Array:
        noted[name] = what(value, ranges.get(name))
        return value

    run(function, variables, batch, rules=rules, fake=note, smooth=smooth)
    return noted


def _ends(value: Array, range: None) -> Float[Array, "2"]:
    return jnp.stack([value.min(), value.max()]).astype(jnp.float32)


def _histogram(value: Array, range: Float32[np.ndarray, "2"]) -> Int[Array, " bins"]:
    low, high = (float(end) for end in range)
    place = (value.reshape(-1).astype(jnp.float32) - low) * (BINS / max(high - low, 1e-30))
    place = jnp.clip(place, 0, BINS - 1).astype(jnp.int32)
    # In float32, a bin would stop at 2^24 values: half of what a rectification gives is one number.
    return jnp.zeros(BINS, jnp.int32).at[place].add(1)


def _percentile(
    counts: Float[np.ndarray, " bins"], range: Float32[np.ndarray, "2"], percentile: float
) -> Float32[np.ndarray, "2"]:
    edges = np.linspace(range[0], range[1], BINS + 1)
    share = np.cumsum(counts) / counts.sum()
    outside = 1.0 - percentile / 100
    low = edges[np.searchsorted(share, outside, side="right")]
    high = edges[min(np.searchsorted(share, 1.0 - outside, side="left") + 1, BINS)]
    return _pair(min(low, high), high)


def _least_error(
    counts: Float[np.ndarray, " bins"], range: Float32[np.ndarray, "2"]
) -> Float32[np.ndarray, "2"]:
    edges = np.linspace(range[0], range[1], BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2

    def error(factor: float) -> float:
        low, high = min(range[0], 0.0) * factor, max(range[1], 0.0) * factor
        scale = (high - low) / TOP or 1.0
        zero = np.clip(np.round(-low / scale), 0, TOP)
        values = (np.clip(np.round(middle / scale) + zero, 0, TOP) - zero) * scale
        return float((counts * (values - middle) ** 2).sum())

    best = min(np.linspace(1.0, 0.05, 96).tolist(), key=error)
    return _pair(range[0] * best, range[1] * best)


def _pair(low: Any, high: Any) -> Float32[np.ndarray, "2"]:
    return np.asarray([low, high], np.float32)
