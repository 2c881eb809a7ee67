"""What models answer to the test examples: those of like length are asked together."""

import numpy as np
import pytest

from kdjax import config, parse
from kdjax.contexts.context import Splits
from kdjax.measuring import asking, measure
from kdjax.tasks.classification import Classification
from kdjax.tasks.ctc import CTC
from tests import own_inputs

BUCKETS = [6, 9]


def _splits(buckets):
    source = {"function": "tests.own_inputs:ragged", "n": 300}
    c = {"name": "words", "source": source, "train_split": "train", "test_split": "test"}
    c |= {"buckets": {"tokens": buckets}} if buckets else {}
    return Splits(parse.parse(config.Data, c, "config.data"))


def _marks(inputs):
    """Another number for each example: of its tokens and of their places, whatever is behind them."""
    tokens = inputs["tokens"]
    inside = np.arange(tokens.shape[1])[None] < inputs["tokens_length"][:, None]
    return (tokens * inside * 1.5 ** np.arange(tokens.shape[1])).astype(np.float32)


@pytest.mark.parametrize("buckets", [None, BUCKETS])
@pytest.mark.parametrize("open_length", [True, False])
def test_examples_are_asked_with_those_of_like_length_and_answered_in_their_order(
    buckets, open_length
):
    splits, widths = _splits(buckets), []

    def run(inputs):
        widths.append((inputs["tokens"].shape, int(inputs["tokens_length"].max())))
        marks = _marks(inputs).sum(1)
        return np.stack([marks, inputs["tokens_length"]], axis=1)

    found = measure.answers_of(splits, Classification(classes=2), run, open_length=open_length)
    inputs = splits.test_inputs
    np.testing.assert_allclose(found[:, 0], _marks(inputs).sum(1), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1], inputs["tokens_length"])
    positions = [shape[1] for shape, _ in widths]
    if not (buckets and open_length):
        assert {*positions} == {own_inputs.LENGTH}
        return
    assert positions == sorted(positions)
    assert positions[0] < own_inputs.LENGTH
    assert len({shape[0] for shape, _ in widths}) == 1
    for (_, most), longest in widths[:-1]:
        assert most == min(end for end in (*BUCKETS, own_inputs.LENGTH) if end >= longest)
    assert positions[-1] == own_inputs.LENGTH


def test_behind_an_answer_at_positions_stands_what_the_task_says():
    splits, task = _splits(BUCKETS), CTC(alphabet=("a", "b"))
    behind = np.asarray(task.behind, np.float32)

    def run(inputs):
        """As the head says it: what the task says behind the end."""
        marks, positions = _marks(inputs), inputs["tokens"].shape[1]
        inside = np.arange(positions)[None] < inputs["tokens_length"][:, None]
        answers = np.stack([marks, marks + 1, marks + 2], axis=-1)
        return np.where(inside[..., None], answers, behind)

    found = measure.answers_of(splits, task, run)
    np.testing.assert_allclose(found, run(splits.test_inputs), rtol=1e-6)
    assert found.shape[1] == own_inputs.LENGTH
    assert (found[..., 1:].argmax(-1) == 1).any()


@pytest.mark.parametrize("buckets", [None, BUCKETS])
def test_features_of_a_part_are_asked_so_too(buckets):
    splits, widths = _splits(buckets), []
    part = splits.train.select(np.arange(290)[::-3])

    def ask(inputs):
        widths.append(inputs["tokens"].shape)
        return _marks(inputs).sum(1, keepdims=True)

    found = asking.over_alike(ask, part, splits.widths(part), batch=16)
    np.testing.assert_allclose(found, _marks(part.inputs()).sum(1, keepdims=True), rtol=1e-6)
    assert {size for size, _ in widths} == {16}
    positions = [length for _, length in widths]
    assert positions == sorted(positions)
    assert (positions[0] < own_inputs.LENGTH) == bool(buckets)
