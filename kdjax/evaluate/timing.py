"""How long a call takes, alone or in turn with others."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from kdjax.alone import alone

FEWEST = 5
"""Samples taken however slow the call is, unless fewer `repeats` are asked for."""


@dataclasses.dataclass(frozen=True)
class Latency:
    """Wall-clock time of one call, in milliseconds.

    Attributes:
      ms_p50: median over all samples.
      ms_p95: 95th percentile over all samples, interpolated; with few samples nearly the largest.
      repeats: samples that were really taken.
      warmup: untimed calls that were really made first.
    """

    ms_p50: float
    ms_p95: float
    repeats: int
    warmup: int

    def real_time_factor(self, seconds: float) -> float:
        """Seconds of processing a second of what the examples of a call last, by the median."""
        return self.ms_p50 / 1000 / seconds


def latency(
    call: Callable[[], Any],
    *,
    warmup: int = 10,
    repeats: int = 100,
    min_seconds: int | float = 0.5,
    max_seconds: int | float = 30.0,
) -> Latency:
    """Times `call`, one sample a call, until both `repeats` and `min_seconds` are reached.

    Each sample waits for the result (`jax.block_until_ready`, which leaves what is not of jax
    alone), so asynchronous dispatch does not make a call look fast.

    Args:
      call: what to time; its arguments are bound and already where it needs them.
      warmup: untimed calls before the first sample: compilation, caches, clocks.
      repeats: fewest samples wanted.
      min_seconds: least wall-clock time to spend on samples, so that fast calls get more of them.
      max_seconds: most wall-clock time to start samples in, and the same again for warm-up. It ends
        both early, but at least 1 warm-up call (if any are wanted) and 5 samples (or `repeats`, if
        fewer) are made.

    Raises:
      ValueError: a number is out of range.
    """
    timed = interleaved(
        {"call": call},
        warmup=warmup,
        repeats=repeats,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
    )
    return timed["call"]


@alone()
def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    warmup: int = 10,
    repeats: int = 100,
    min_seconds: int | float = 0.5,
    max_seconds: int | float = 30.0,
) -> dict[str, Latency]:
    """Times several calls in turn, one sample each a round, in the order of the mapping.

    A machine that drifts (heat, neighbours) slows all of them alike, so their ratios hold where
    separate runs would not compare. Each call finds the caches as the one before it left them, so a
    small model may read slower here than alone in `latency`. Other processes of the same command stand
    still meanwhile, see `kdjax.alone`.

    Args:
      calls: what to time, by name.
      warmup: untimed rounds before the first sample.
      repeats: fewest rounds wanted.
      min_seconds: least wall-clock time to spend on samples, of all calls together.
      max_seconds: most wall-clock time to start rounds in, of all calls together, and the same
        again for warm-up; the fewest rounds are those of `latency`.

    Raises:
      ValueError: there are no calls, or a number is out of range.
    """
    if not calls:
        raise ValueError("no calls to time")
    if warmup < 0 or repeats < 1:
        raise ValueError(f"need warmup >= 0 and repeats >= 1, not {warmup} and {repeats}")
    if not 0 <= min_seconds <= max_seconds:
        raise ValueError(f"need 0 <= min_seconds <= max_seconds, not {min_seconds}, {max_seconds}")

    start, warmed = time.perf_counter(), 0
    while warmed < warmup and (not warmed or time.perf_counter() - start < max_seconds):
        for call in calls.values():
            jax.block_until_ready(call())
        warmed += 1

    samples = {name: [] for name in calls}
    start, rounds, seconds = time.perf_counter(), 0, 0.0
    while rounds < min(FEWEST, repeats) or (
        seconds < max_seconds and (rounds < repeats or seconds < min_seconds)
    ):
        for name, call in calls.items():
            samples[name].append(_nanoseconds(call))
        rounds += 1
        seconds = time.perf_counter() - start

    return {name: _summary(taken, warmed) for name, taken in samples.items()}


def _nanoseconds(call: Callable[[], Any]) -> int:
    start = time.perf_counter_ns()
    jax.block_until_ready(call())
    return time.perf_counter_ns() - start


def _summary(nanoseconds: list[int], warmup: int) -> Latency:
    p50, p95 = np.percentile(np.asarray(nanoseconds) / 1e6, [50, 95])
    return Latency(float(p50), float(p95), repeats=len(nanoseconds), warmup=warmup)
