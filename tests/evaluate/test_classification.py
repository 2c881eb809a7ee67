import dataclasses
import warnings

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from sklearn import metrics

from kdjax.evaluate import agreement, confusion, logits_over, scores

CLASSES = 5


def _pairs(low=0):
    """Labels and predictions that often leave classes out."""
    return st.lists(
        st.tuples(st.integers(low, CLASSES - 1), st.integers(low, CLASSES - 1)),
        min_size=1,
        max_size=40,
    ).map(lambda pairs: np.array(pairs, np.int32).T)


def test_confusion_has_labels_in_rows():
    label, prediction = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2])
    table = [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert confusion(label, prediction, classes=3).tolist() == table
    assert confusion(jnp.asarray(label), jnp.asarray(prediction), classes=3).tolist() == table


def test_confusion_of_nothing_is_all_zero():
    none = np.zeros(0, np.int32)
    assert confusion(none, none, classes=2).tolist() == [[0, 0], [0, 0]]


def test_confusion_of_many_classes_does_not_overflow_narrow_labels():
    last = np.full(3, 199, np.uint8)
    assert confusion(last, last, classes=200)[199, 199] == 3


@pytest.mark.parametrize("outside", [-1, 3])
def test_confusion_refuses_a_class_out_of_range(outside):
    inside = np.array([0, 1])
    with pytest.raises(ValueError, match=f"label: {outside} is not one of 3 classes"):
        confusion(np.array([0, outside]), inside, classes=3)
    with pytest.raises(ValueError, match=f"prediction: {outside} is not one of 3"):
        confusion(inside, np.array([0, outside]), classes=3)


@given(_pairs())
def test_confusion_is_that_of_scikit_learn(pairs):
    expected = metrics.confusion_matrix(*pairs, labels=range(CLASSES))
    np.testing.assert_array_equal(confusion(*pairs, classes=CLASSES), expected)


def test_scores_by_hand():
    found = scores(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]]))
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.recall_macro == pytest.approx((1 / 2 + 1 / 1 + 2 / 3) / 3)
    assert found.f1_macro == pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3)
    assert found.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 2))
    assert found.examples == 6


@given(_pairs())
def test_scores_are_those_of_scikit_learn(pairs):
    label, prediction = pairs
    found = scores(confusion(label, prediction, classes=CLASSES))
    with warnings.catch_warnings():
        # It warns of a class that is only predicted, and of one label in all.
        warnings.simplefilter("ignore")
        assert found.recall_macro == pytest.approx(
            metrics.balanced_accuracy_score(label, prediction)
        )
        assert found.f1_macro == pytest.approx(metrics.f1_score(label, prediction, average="macro"))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(label, prediction))


@given(_pairs(), st.permutations(range(CLASSES)), st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_class_names_or_order(pairs, names, random):
    found = scores(confusion(*pairs, classes=CLASSES))
    order = random.sample(range(pairs.shape[1]), pairs.shape[1])
    assert scores(confusion(*pairs[:, order], classes=CLASSES)) == found
    renamed = scores(confusion(*np.array(names)[pairs], classes=CLASSES))
    for field in ("accuracy", "recall_macro", "f1_macro", "examples"):
        assert getattr(renamed, field) == pytest.approx(getattr(found, field))


@given(hnp.arrays(np.int64, (4, 4), elements=st.integers(0, 50)).filter(lambda c: c.sum() > 0))
def test_accuracy_is_the_trace_over_the_sum_and_all_scores_are_fractions(counts):
    found = scores(counts)
    assert found.accuracy == pytest.approx(np.trace(counts) / counts.sum())
    assert all(0 <= s <= 1 for s in (found.accuracy, found.recall_macro, found.f1_macro))


def test_a_class_without_examples_counts_only_where_it_is_predicted():
    # Class 1 never occurs and is predicted once; class 2 never occurs at all.
    found = scores(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    assert found.recall_macro == pytest.approx(3 / 4)
    assert found.f1_macro == pytest.approx((6 / 7 + 0) / 2)


def test_a_single_class_scores_one():
    found = scores(np.array([[7]]))
    assert (found.accuracy, found.recall_macro, found.f1_macro) == (1.0, 1.0, 1.0)


def test_scores_are_frozen_plain_and_comparable():
    found = scores(jnp.array([[2, 1], [0, 3]]))
    assert found == scores(np.array([[2, 1], [0, 3]]))
    assert hash(found) == hash(scores(np.array([[2, 1], [0, 3]])))
    assert {type(v) for v in dataclasses.astuple(found)} == {float, tuple, int}
    assert type(found.confusion[0][0]) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.accuracy = 1.0


def test_no_examples_have_no_scores():
    with pytest.raises(ValueError, match="no examples"):
        scores(np.zeros((3, 3), np.int64))


IMAGES = np.random.default_rng(0).integers(256, size=(10, 2, 2, 1), dtype=np.uint8)


def _predict(images):
    flat = images.reshape(len(images), -1).astype(np.float32)
    return np.stack([flat.sum(-1), flat.max(-1), flat[:, 0]], axis=-1)


@pytest.mark.parametrize("batch", [1, 3, 5, 10, 16])
def test_logits_over_batches_are_those_of_one_call(batch):
    shapes = []

    def predict(images):
        shapes.append((images.shape, images.dtype))
        return _predict(images)

    found = logits_over(predict, IMAGES, batch=batch)
    np.testing.assert_array_equal(found, _predict(IMAGES))
    assert found.dtype == np.float32
    # Every call sees one shape, whether or not the batch divides the examples.
    assert shapes == [((batch, 2, 2, 1), np.dtype(np.uint8))] * -(-10 // batch)


def test_logits_over_does_not_retrace():
    traces = []

    @jax.jit
    def predict(images):
        traces.append(images.shape)
        return images.reshape(images.shape[0], -1)[:, :3].astype(jnp.bfloat16)

    found = logits_over(predict, IMAGES, batch=4)
    assert traces == [(4, 2, 2, 1)]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, IMAGES.reshape(10, -1)[:, :3])


def test_logits_over_keeps_no_buffer_of_the_runtime():
    buffer = np.zeros((2, 1), np.float32)

    def predict(images):
        buffer[:] = images.sum(axis=(1, 2, 3))[:, None]
        return buffer

    found = logits_over(predict, IMAGES, batch=2)
    np.testing.assert_array_equal(found[:, 0], IMAGES.sum(axis=(1, 2, 3)))


@pytest.mark.parametrize(
    "predict",
    [lambda images: images[:3], lambda images: np.zeros((1, 3)), lambda images: np.zeros(4)],
)
def test_logits_over_refuses_another_shape(predict):
    with pytest.raises(ValueError, match=r"expected \[4, \.\.\.\]"):
        logits_over(predict, IMAGES, batch=4)


def test_logits_over_refuses_no_images_and_no_batch():
    with pytest.raises(ValueError, match="no examples"):
        logits_over(_predict, IMAGES[:0], batch=4)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        logits_over(_predict, IMAGES, batch=0)


LOGITS = np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.5]], np.float32)


def test_agreement_by_hand():
    other = LOGITS + np.array([[0.0, -1.5, 0.0], [0.25, 0.0, 0.0]], np.float32)
    found = agreement(jnp.asarray(LOGITS), other)  # one of jax, one of NumPy
    assert found.max_difference == 1.5
    assert found.mean_difference == pytest.approx(1.75 / 6)
    assert found.agreement == 0.5


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=False)))
def test_logits_agree_with_themselves(logits):
    found = agreement(logits, logits.copy())
    assert dataclasses.astuple(found) == (0.0, 0.0, 1.0)


@given(*[hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32))] * 2)
def test_agreement_is_symmetric_and_never_nan(a, b):
    found = agreement(a, b)
    assert found == agreement(b, a)
    assert not any(map(np.isnan, dataclasses.astuple(found)))
    assert found.max_difference >= found.mean_difference >= 0


@pytest.mark.parametrize("side", ["a", "b", "both"])
def test_nan_never_agrees(side):
    # argmax of the NaN row is the NaN itself, class 1, which the other side predicts too.
    broken = LOGITS.copy()
    broken[0, 1] = np.nan
    pair = {"a": (broken, LOGITS), "b": (LOGITS, broken), "both": (broken, broken)}[side]
    found = agreement(*pair)
    assert found.max_difference == found.mean_difference == np.inf
    assert found.agreement == 0.5


def test_infinities_agree_only_with_themselves():
    masked = LOGITS.copy()
    masked[0, 0] = -np.inf
    assert agreement(masked, masked).max_difference == 0
    assert agreement(masked, LOGITS).max_difference == np.inf
    assert agreement(masked, -masked).max_difference == np.inf


def test_agreement_refuses_nothing():
    with pytest.raises(ValueError, match="no logits"):
        agreement(LOGITS[:0], LOGITS[:0])


def test_other_shapes_are_refused_without_the_type_checker_too():
    with pytest.raises(ValueError, match=r"shape \[2, 3\] and \[1, 3\]"):
        agreement.__wrapped__(LOGITS, LOGITS[:1])
    with pytest.raises(ValueError, match="3 labels but 2 predictions"):
        confusion.__wrapped__(np.zeros(3, np.int32), np.zeros(2, np.int32), classes=2)
