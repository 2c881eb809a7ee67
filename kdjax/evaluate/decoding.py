"""From what a CTC model says of frames to labels: the best path, and the best labels over all paths.

A path has a class for each frame; its labels are what is left of it when equal classes that follow each
other are one, and blanks are taken out.

Reference: Graves et al. 2006, https://doi.org/10.1145/1143844.1143891.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_NOTHING = -np.inf


def greedy(
    logits: Float[np.ndarray, "n frames classes"],
    *,
    blank: int = 0,
    mask: Bool[np.ndarray, "n frames"] | None = None,
) -> list[tuple[int, ...]]:
    """The labels of the likeliest path of each example.

    Args:
      logits: of the classes at each frame, the blank among them.
      blank: its class.
      mask: frames that count; None for all. A model that says blank elsewhere needs none.
    """
    return [
        _collapsed(path if mask is None else path[mask[i]], blank)
        for i, path in enumerate(np.asarray(logits).argmax(-1))
    ]


def _collapsed(path: Int[np.ndarray, " frames"], blank: int) -> tuple[int, ...]:
    new = np.ones(len(path), bool)
    new[1:] = path[1:] != path[:-1]
    return tuple(path[new & (path != blank)].tolist())


class Hypothesis(NamedTuple):
    """Labels, and the logarithm of their probability: of all paths that were followed."""

    labels: tuple[int, ...]
    log_prob: float


def prefix_beam(
    logits: Float[np.ndarray, "frames classes"], *, beam: int, blank: int = 0
) -> list[Hypothesis]:
    """The likeliest labels of an example, best first: a search over beginnings of labels, in float64.

    The probability of labels is the sum over all their paths. It is exact where the beam is as wide as
    there are beginnings; a narrower one leaves out what has fallen behind on the way.

    Args:
      logits: of the classes at each frame that counts, the blank among them.
      beam: how many beginnings are followed.
      blank: its class.

    Raises:
      ValueError: the beam is not at least 1.

    Reference: Graves 2012, Supervised Sequence Labelling with Recurrent Neural Networks, sec. 7.5.3, as
    in Hannun et al. 2014, https://arxiv.org/abs/1408.2873, without a language model.
    """
    if beam < 1:
        raise ValueError(f"a beam of {beam}: give 1 or more")
    scores = np.asarray(logits, np.float64)
    scores = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    labels = [c for c in range(scores.shape[-1]) if c != blank]
    # Of each beginning: paths that end in a blank, and those that end in its last label.
    held: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _NOTHING)}
    for frame in scores.tolist():
        found: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(prefix, *, blanks: float = _NOTHING, label: float = _NOTHING, found=found) -> None:
            before = found.get(prefix, (_NOTHING, _NOTHING))
            found[prefix] = (_sum(before[0], blanks), _sum(before[1], label))

        for prefix, (in_blank, in_label) in held.items():
            either = _sum(in_blank, in_label)
            add(prefix, blanks=either + frame[blank])
            if prefix:
                add(prefix, label=in_label + frame[prefix[-1]])
            for label in labels:
                # The same label again is a new one only behind a blank.
                begun = in_blank if prefix and label == prefix[-1] else either
                add((*prefix, label), label=begun + frame[label])
        best = sorted(found, key=lambda prefix: (-_sum(*found[prefix]), prefix))[:beam]
        held = {prefix: found[prefix] for prefix in best}
    return [Hypothesis(prefix, _sum(*both)) for prefix, both in held.items()]


def _sum(a: float, b: float) -> float:
    """Of two probabilities, by their logarithms."""
    return float(np.logaddexp(a, b))
