"""Which token each hidden one of a text is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from kdjax import evaluate, models, train
from kdjax.data import UNLABELLED, Target, Tokens
from kdjax.data.sources import TOKENS
from kdjax.report import Score
from kdjax.tasks.tagging import OfTags
from kdjax.types import BadInput, Batch
from kdjax.views import draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM(OfTags):
    """Masked language modelling: the token at each position of a text, of which some are hidden.

    A label is learned at the positions that the view says are `hidden`; what a teacher says, at all that
    are no padding, or at those. Models are tested on texts with one hidden token each, and of their
    answers the one at the first hidden token is looked at.

    Attributes:
      classes: tokens of the vocabulary.
      positions: of a text, those of padding counted.
      mask: the token that stands for a hidden one.

    Reference: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, sec. 3.1.
    """

    target: ClassVar[type[Target]] = Tokens
    primary: ClassVar[str] = "pseudo_perplexity"

    name: Literal["masked_lm"] = "masked_lm"
    classes: int
    positions: int
    mask: int

    @classmethod
    def of(cls, target: Tokens) -> "MaskedLM":
        """See `Task`."""
        return cls(classes=target.classes, positions=target.positions, mask=target.mask)

    def head(self, encoder: nn.Module) -> nn.Module:
        """The model: see `kdjax.models.MaskedLM`.

        Raises:
          BadInput: the encoder is not one of tokens with a context.
        """
        if not isinstance(encoder, models.BERT | models.ModernBERT):
            raise BadInput(
                "encoder", f"{type(encoder).__name__}, and the task is masked_lm", "take a bert"
            )
        return models.MaskedLM(encoder)

    def made_up(self, examples: int) -> Float32[np.ndarray, "n one classes"]:
        """Answers that may occur, always the same ones."""
        random = np.random.default_rng(0)
        return random.normal(size=(examples, 1, self.classes)).astype(np.float32)

    def asked(self, outputs: train.Outputs, batch: Batch) -> Int[Array, "batch positions"]:
        """The tokens at the positions that the view has hidden.

        Raises:
          BadInput: the view shows all of them.
        """
        if draws.HIDDEN not in batch:
            raise BadInput(
                "views", "the task is masked_lm, and all tokens are shown", "take masked_tokens"
            )
        label = super().asked(outputs, batch)
        return jnp.where(batch[draws.HIDDEN][:, : label.shape[1]], label, UNLABELLED)

    def judged(self, answers: Any, batch: Mapping[str, Any]) -> Any:
        """Those at the first hidden token of each text, at its first position where none is."""
        rows: Any = np if isinstance(answers, np.ndarray) else jnp  # no time is spent on a device
        at = (rows.asarray(batch[TOKENS]) == self.mask).argmax(1)
        return rows.take_along_axis(answers, at[:, None, None], axis=1)

    def scores(
        self,
        answers: Float[np.ndarray, "n one classes"],
        labels: Int[np.ndarray, "n positions"],
    ) -> Mapping[str, Score]:
        """The pseudo-perplexity, the lower the better, and the share of tokens that are said right.

        `exp` of the mean cross-entropy of each token from all others of its text, in nats. Tokens of one
        text depend on each other, so neither has an interval.

        Reference: Salazar et al. 2020, https://arxiv.org/abs/1910.14659, eq. 4.
        """
        logits, said = answers[:, 0].astype(np.float64), labels.max(1)
        if (said < 0).any():
            raise ValueError(f"text {np.flatnonzero(said < 0)[0]} has no token to be scored by")
        log_probs = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)
        mean = float(np.mean(log_probs[np.arange(len(said)), said]))
        return {
            "pseudo_perplexity": Score(
                float(np.exp(-mean)), higher_is_better=False, fraction=False
            ),
            "accuracy": Score(float((logits.argmax(-1) == said).mean())),
        }

    def accuracy(
        self,
        answers: Float[np.ndarray, "n one classes"],
        labels: Int[np.ndarray, "n positions"],
    ) -> float | None:
        """That of the scores."""
        return self.scores(answers, labels)["accuracy"].value

    def agreement(
        self,
        a: Float[np.ndarray, "n one classes"],
        b: Float[np.ndarray, "n one classes"],
        labels: Int[np.ndarray, "n positions"] | None = None,
    ) -> evaluate.Agreement:
        """Share of the hidden tokens that both say alike."""
        return evaluate.agreement(a, b)
