"""Terms of what transformers have at each position: hidden states and attention.

TinyBERT's terms are `attention_scores` and, of embeddings and hidden states, `hint`; a term for each
layer has a weight of its own. Padding is no part of any.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from kdjax import distill
from kdjax.config.feature_terms import FeatureTerm
from kdjax.config.fields import Count, NonNegative
from kdjax.config.training import Weight
from kdjax.distill import Comparison, Relation, Taps
from kdjax.ranges import AtLeast, Distinct
from kdjax.types import Fault


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiddenCosine(FeatureTerm):
    """DistilBERT's: `kdjax.losses.hidden_cosine` of blocks, behind a learned map where widths differ."""

    name: Literal["hidden_cosine"]
    weight: Weight = 1.0

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.hidden_cosine`."""
        return distill.hidden_cosine(taps.student, taps.teacher, compute=taps.compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilHuBERT(FeatureTerm):
    """DistilHuBERT's: several layers of the teacher, each predicted from one of the student by a head.

    Heads are linear, learned with the student and left behind; see `kdjax.losses.distilhubert`. Of 12
    layers the paper predicts the 4th, the 8th and the last from the last of the student's two.

    Attributes:
      cosine_weight: of the cosine beside the L1 distance.
      student: one path, as a rule of the last layer.
      teacher: those that are predicted, any number.
    """

    paired: ClassVar = False

    name: Literal["distilhubert"]
    weight: Weight = 1.0
    cosine_weight: NonNegative = 1.0

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.distilhubert`."""
        return distill.distilhubert(
            taps.student, taps.teacher, cosine_weight=self.cosine_weight, compute=taps.compute
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PKD(FeatureTerm):
    """`kdjax.losses.pkd` of the first token of blocks, behind a learned map where widths differ."""

    name: Literal["pkd"]
    weight: Weight = 100.0

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.pkd`."""
        return distill.pkd(taps.student, taps.teacher, compute=taps.compute)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionScores(FeatureTerm):
    """TinyBERT's attention maps: `kdjax.losses.attention_mse`.

    The paths are those of attentions, `encoder/block0/attention`, of as many heads on both sides.
    """

    parts: ClassVar = ("/query", "/key")

    name: Literal["attention_scores"]
    weight: Weight = 1.0

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.attention_scores`."""
        return distill.attention_scores(taps.student, taps.teacher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionRelations(FeatureTerm):
    """MiniLM's relations: `kdjax.losses.relation_kl` of one attention of each side, as a rule the last.

    The paths are those of attentions, `encoder/block5/attention`. `relations=["attention", "value"]` with
    the heads of the attentions is the first MiniLM; the default is MiniLMv2.

    Attributes:
      relations: of queries, keys and values with themselves; or of queries with keys, the `attention`.
        Their losses are added up.
      heads: of the relations, which divide the width of either side; None for those of the attentions,
        which are as many on both sides.
    """

    parts: ClassVar = ("/query", "/key", "/value")

    name: Literal["attention_relations"]
    weight: Weight = 1.0
    relations: Annotated[tuple[Relation, ...], AtLeast(1), Distinct()] = ("query", "key", "value")
    heads: Count | None = None

    def faults(self) -> Iterator[Fault]:
        """Fields that do not go together."""
        if "attention" in self.relations and self.heads is not None:
            yield (
                "heads, relations",
                f"{self.heads}, and an attention has heads of its own",
                "leave it out",
            )

    def comparison(self, taps: Taps) -> Comparison:
        """See `kdjax.distill.attention_relations`."""
        return distill.attention_relations(
            taps.student, taps.teacher, relations=self.relations, heads=self.heads
        )
