"""One result: its data and its stages."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kdjax.config.data import Data
from kdjax.config.encoders.log_mel import LogMel
from kdjax.config.fields import Count, Seed, Text, parts, untracked
from kdjax.config.scores import OwnScore
from kdjax.config.sources.recordings import ConnectedWords, Sounds
from kdjax.config.stage import Stage
from kdjax.ranges import AtLeast, Distinct, In
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One result: data, and the stages that lead to it.

    Attributes:
      name: of the result.
      data: what is learned from.
      stages: by name. A stage's name is also that of its stream of random views, and part of the
        names of folders and files: 1 to 80 letters, digits, `_` and `-` (blanks within, too), of any
        script, that begin with a letter or digit; no two that differ in capitals alone.
      scores: more scores of every model, by name: functions of one's own, `dict(function=top_five)`.
      reference: a stage whose model all others are measured against, too: how often they agree with it
        on the test examples. Where these have no labels, that is the only score. What the stage itself
        is made from is left out.
      seeds: every stage that has no seed of its own is run for each; the report has means and intervals
        over them.
      parallel: `single`, `pmap`, `mesh`; `auto` is `single` on one device, `pmap` on several.
      convolutions: `auto` runs those of training and of evaluation in the order of sums that is fast
        on a CPU, where it is one; `xla` as XLA has them everywhere. See `kdjax.models.convolve`.
      latency_batch: examples in one timed call.
      latency_bulk_batch: of a second one, of exported files: many examples at once.
      latency_threads: of the runtimes that can be told.
      latency_seconds: most that are spent on timing one call, half of it where that is of
        `latency_bulk_batch`, and as long again on warming up. With 0 each is called five times, and the
        memory that a file takes is not measured: for what is tried quickly.
    """

    name: Text
    data: Data
    stages: Annotated[Mapping[str, Stage], AtLeast(1)]
    scores: Mapping[str, OwnScore] = dataclasses.field(default_factory=dict)
    reference: Text | None = untracked(None)  # its fingerprint is part of what it measures
    seeds: Annotated[tuple[Seed, ...], AtLeast(1), Distinct()] = (0,)
    parallel: Literal["auto", "single", "pmap", "mesh"] = untracked("auto")
    convolutions: Literal["auto", "xla"] = untracked("auto")
    latency_batch: Count = untracked(1)
    latency_bulk_batch: Count = untracked(64)
    latency_threads: Annotated[int, In("[1, 2^12]")] = untracked(1)
    latency_seconds: Annotated[float, In("[0, 600]")] = untracked(2.0)

    def needs(self, name: str) -> tuple[str, ...]:
        """Names of the stages that one reads, the one that it is compared with among them."""
        own = self.stages[name].needs(self.stages)
        if self.reference in (None, name, *own) or not self.is_compared(name):
            return own
        return (*own, self.reference)

    def is_compared(self, name: str) -> bool:
        """Whether the model of a stage is compared with the reference, which may be itself."""
        if self.reference is None or not self.stages[name].is_measured():
            return False
        return name not in self._before(self.reference, set())

    def _before(self, name: str, found: set[str]) -> set[str]:
        """`found` and all that a stage is made from, by whatever is in between."""
        for other in self.stages[name].needs(self.stages) if name in self.stages else ():
            if other not in found:
                found.add(other)
                self._before(other, found)
        return found

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        primary = [f"scores.{name}.primary" for name, score in self.scores.items() if score.primary]
        if len(primary) > 1:
            yield ", ".join(primary), "models are compared by one score", "choose one"
        if isinstance(sounds := self.data.source, Sounds | ConnectedWords):
            for path, encoder in parts(self.stages, LogMel, "stages"):
                if encoder.rate != sounds.rate:
                    yield (
                        f"{path}.rate, data.source.rate",
                        f"{encoder.rate} samples a second, and recordings have {sounds.rate}",
                        f"give {sounds.rate}",
                    )
