"""Texts whose labels are their own tokens: what a masked language model is asked."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Int32, Shaped

from kdjax import fingerprint
from kdjax.data.dataset import Dataset
from kdjax.data.ids import unique_ids
from kdjax.data.targets import UNLABELLED, Tags
from kdjax.types import BadInput, Field, length_of

_AT_ONCE = 4096
"""Texts that are read together."""


@dataclasses.dataclass(frozen=True)
class Tokens(Tags):
    """The token at each position of a text: int32 [n, positions], `UNLABELLED` at those of no text.

    Attributes:
      mask: the token that stands for a hidden one.
    """

    mask: int

    def __str__(self) -> str:
        return f"the tokens of a text, below {self.classes}, at each of {self.positions} positions"


def of_tokens(dataset: Dataset) -> Dataset:
    """The same texts, with their tokens as labels; what begins, ends or pads a text has none.

    Raises:
      BadInput: an example has no tokens, or several fields of them, or no token stands for a hidden one;
        the line begins with what says so.
    """
    name, field = _field(dataset)
    labels = np.full((len(dataset), *field.shape), UNLABELLED, np.int32)
    for begin in range(0, len(dataset), _AT_ONCE):
        rows = np.arange(begin, min(begin + _AT_ONCE, len(dataset)))
        tokens = dataset.read(rows)[name]
        said = _said(tokens, dataset.lengths[name][rows], field)
        labels[rows] = np.where(said, tokens, UNLABELLED)
    assert field.below is not None  # see `_field`
    assert field.mask is not None
    target = Tokens(field.below, field.shape[0], field.mask)

    def marked(labels: Shaped[np.ndarray, "n positions"]) -> str:
        return fingerprint.of_json([whole, "tokens", fingerprint.of_arrays({"labels": labels})])

    whole = dataset.marked(dataset.target.hidden(len(dataset)))
    return dataclasses.replace(dataset, labels=labels, target=target, marked=marked, narrow=None)


def each_hidden(dataset: Dataset) -> Dataset:
    """Each text of `of_tokens` as often as it has tokens with a label, each time with one of them hidden.

    That one alone has a label. So what a model says of it is of all other tokens of the text.

    Raises:
      BadInput: a text has the token for a hidden one itself, so that two would be hidden.

    Reference: Salazar et al. 2020, https://arxiv.org/abs/1910.14659, sec. 2 (pseudo-log-likelihood).
    """
    name, field = _field(dataset)
    for begin in range(0, len(dataset), _AT_ONCE):
        rows = np.arange(begin, min(begin + _AT_ONCE, len(dataset)))
        has = np.flatnonzero((dataset.read(rows)[name] == field.mask).any(1))
        if len(has):
            raise BadInput(
                "kind",
                f"text {begin + has[0]} of {dataset.name} has the token for a hidden one itself, and "
                "is tested with one hidden token at a time",
                "remove it from the text: [MASK] or <mask>",
            )
    text, place = np.nonzero(dataset.labels != UNLABELLED)
    labels = np.full((len(text), *field.shape), UNLABELLED, np.int32)
    copies = np.arange(len(text))
    labels[copies, place] = dataset.labels[text, place]

    def read(rows: Int[np.ndarray, " b"]) -> Mapping[str, np.ndarray]:
        found = {key: np.array(x) for key, x in dataset.read(text[rows]).items()}
        found[name][np.arange(len(rows)), place[rows]] = field.mask
        return found

    def marked(labels: Shaped[np.ndarray, "n positions"]) -> str:
        mark = fingerprint.of_arrays({"labels": labels})
        return fingerprint.of_json([dataset.fingerprint, "each hidden", mark])

    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}, each token hidden",
        ids=unique_ids(
            [b"%d at %d" % (dataset.ids[i], at) for i, at in zip(text, place, strict=True)]
        ),
        labels=labels,
        read=read,
        marked=marked,
        lengths={key: own[text] for key, own in dataset.lengths.items()},
        originals=None,
    )


def _field(dataset: Dataset) -> tuple[str, Field]:
    """The field that has tokens."""
    found = [(name, f) for name, f in dataset.fields.items() if f.mask is not None and f.ragged]
    if len(found) != 1:
        raise BadInput(
            "kind",
            f"tokens of {dataset.name} are asked for, and it has no text whose tokenizer has a token "
            "for a hidden one",
            "give such texts: [MASK] or <mask>",
        )
    ((name, field),) = found
    if field.below is None or length_of(name) not in dataset.fields:
        raise BadInput("kind", f"{name} of {dataset.name} are no tokens of a vocabulary")
    return name, field


def _said(
    tokens: Int32[np.ndarray, "n positions"], lengths: Int[np.ndarray, " n"], field: Field
) -> np.ndarray:
    """Which positions have a token of the text."""
    inside = np.arange(tokens.shape[1])[None] < lengths[:, None]
    return inside & ~np.isin(tokens, field.frame)
