import dataclasses

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from kdjax.evaluate import Probe, linear_probe
from kdjax.evaluate import probe as probe_module
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(3, 6)) * 0.8


def _drawn(n, classes=3, seed=0):
    random = np.random.default_rng(seed)
    label = np.arange(n) % classes
    features = CENTRES[label] + random.normal(size=(n, 6))
    # Dimensions of other scales and places, as an encoder may have them.
    return (features * [1, 10, 0.1, 1, 1, 100] + [0, 5, 0, -3, 0, 1]).astype(np.float32), label


FEATURES, LABEL = _drawn(90)
FEW = {"classes": 3, "seed": 0, "strengths": (1e-3, 1e-1)}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_it_is_the_minimum_of_the_penalized_cross_entropy(classes, strength):
    """The gradient of what the docstring says is zero there, in float64 and by hand."""
    features, label = _drawn(60, classes)
    probe = linear_probe(features, label, classes=classes, seed=0, strengths=[strength])
    x = features.astype(np.float64)
    std = x.std(0)
    weights = probe.kernel * std[:, None]  # of standardised features
    standard = (x - x.mean(0)) / std
    kernel_grad, bias_grad = strength * weights, np.zeros(classes)
    for row, scaled, right in zip(x, standard, label, strict=True):
        logits = row @ probe.kernel + probe.bias
        p = np.exp(logits - logits.max())
        error = p / p.sum() - np.eye(classes)[right]
        kernel_grad += np.outer(scaled, error) / len(x)
        bias_grad += error / len(x)
    np.testing.assert_allclose(kernel_grad, 0, atol=1e-5)
    np.testing.assert_allclose(bias_grad, 0, atol=1e-5)
    assert probe.strength == strength


def test_predictions_are_scikit_learns():
    probe = linear_probe(FEATURES, LABEL, classes=3, seed=0, strengths=[0.01])
    mean, std = FEATURES.mean(0), FEATURES.std(0)
    theirs = LogisticRegression(C=1 / (0.01 * 90), tol=1e-6).fit((FEATURES - mean) / std, LABEL)
    test, _ = _drawn(30, seed=1)
    logits = probe.logits(test)
    assert logits.dtype == np.float32
    p = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(
        p / p.sum(-1, keepdims=True), theirs.predict_proba((test - mean) / std), atol=1e-4
    )


def test_it_learns_and_the_scale_of_the_features_does_not_matter():
    test, right = _drawn(300, seed=1)
    probe = linear_probe(FEATURES, LABEL, **FEW)
    accuracy = (probe.logits(test).argmax(-1) == right).mean()
    assert accuracy > 0.6  # chance is a third
    scaled = linear_probe(FEATURES * 1000 + 7, LABEL, **FEW)
    assert scaled.strength == probe.strength
    np.testing.assert_allclose(scaled.logits(test * 1000 + 7), probe.logits(test), atol=1e-2)


def test_the_strength_is_the_largest_of_those_that_validate_best():
    # Features of noise alone: the strongest predicts no worse, and the weak ones learn them by heart.
    noise = np.random.default_rng(2).normal(size=(60, 30)).astype(np.float32)
    label = np.arange(60) % 2
    probe = linear_probe(noise, label, classes=2, seed=0, strengths=(1e-3, 1.0, 1e3, 1e4))
    best = max(probe.validation_accuracy)
    tried = zip((1e-3, 1.0, 1e3, 1e4), probe.validation_accuracy, strict=True)
    assert probe.strength == max(s for s, accuracy in tried if accuracy == best)
    # Two that are as good: the order they are given in does not decide.
    clear = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    for strengths in ((1e-2, 1e-1), (1e-1, 1e-2)):
        probe = linear_probe(clear, np.repeat([0, 1], 10), classes=2, seed=0, strengths=strengths)
        assert probe.validation_accuracy == (1.0, 1.0)
        assert probe.strength == 1e-1


def test_the_validation_split_is_a_matter_of_the_seed_alone():
    accuracies = {
        linear_probe(FEATURES, LABEL, **{**FEW, "seed": s}).validation_accuracy for s in range(6)
    }
    assert len(accuracies) > 1
    first, second = (linear_probe(FEATURES, LABEL, **FEW) for _ in range(2))
    np.testing.assert_array_equal(first.kernel, second.kernel)
    assert first.validation_accuracy == second.validation_accuracy


def test_many_examples_are_all_fitted_and_some_of_them_choose(monkeypatch):
    whole = linear_probe(FEATURES, LABEL, **FEW)
    monkeypatch.setattr(probe_module, "MOST_TO_CHOOSE", len(LABEL))  # no more than may choose
    np.testing.assert_array_equal(linear_probe(FEATURES, LABEL, **FEW).kernel, whole.kernel)
    few = len(LABEL) // 3
    monkeypatch.setattr(probe_module, "MOST_TO_CHOOSE", few)
    found = linear_probe(FEATURES, LABEL, **FEW)
    held_out = round(0.2 * few / 3) * 3  # of each of three classes
    assert all(
        round(held_out * a) == pytest.approx(held_out * a) for a in found.validation_accuracy
    )
    alone = linear_probe(FEATURES, LABEL, **{**FEW, "strengths": (found.strength,)})
    np.testing.assert_array_equal(found.kernel, alone.kernel)  # of all examples


def test_two_examples_of_a_class_are_enough_and_one_is_not():
    rows = np.array([0, 1, 2, 3, 4, 5])
    probe = linear_probe(FEATURES[rows], LABEL[rows], **FEW)
    # One of each class was held out.
    assert all(round(3 * a) == pytest.approx(3 * a) for a in probe.validation_accuracy)
    with pytest.raises(ValueError, match="class 2 has fewer than two examples"):
        linear_probe(FEATURES[rows[:5]], LABEL[rows[:5]], **FEW)


def test_one_example_of_a_class_is_enough_where_there_is_nothing_to_choose():
    one = {**FEW, "strengths": (0.1,)}
    probe = linear_probe(FEATURES[:3], LABEL[:3], **one)
    assert (probe.strength, probe.validation_accuracy) == (0.1, ())
    assert (probe.logits(FEATURES[:3]).argmax(-1) == LABEL[:3]).all()
    with pytest.raises(ValueError, match="class 2 has no example"):
        linear_probe(FEATURES[:2], LABEL[:2], **one)


def test_a_constant_feature_has_no_say():
    # One that is so but for the last bit of float32, which tells the labels; and a unit that is dead.
    constant = np.where(LABEL == 0, np.nextafter(np.float32(1000), np.float32(2000)), 1000)
    features = np.column_stack([FEATURES, constant, 0 * constant]).astype(np.float32)
    assert features[:, 6].std() > 0
    probe = linear_probe(features, LABEL, **FEW)
    plain = linear_probe(FEATURES, LABEL, **FEW)
    np.testing.assert_allclose(probe.logits(features), plain.logits(FEATURES), atol=1e-3)
    np.testing.assert_allclose(probe.kernel[7], 0, atol=1e-9)


def test_it_says_where_it_did_not_converge():
    with pytest.warns(ConvergenceWarning):
        linear_probe(FEATURES, LABEL, **FEW, max_iterations=1)


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("classes", {"classes": 1}),
        ("strengths", {"strengths": ()}),
        ("strengths", {"strengths": (0.0, 1.0)}),
        ("validation", {"validation": 0.0}),
        ("validation", {"validation": 1.0}),
    ],
)
def test_bad_input_names_the_field(field, changed):
    with pytest.raises(BadInput, match=f"^{field}: "):
        linear_probe(FEATURES, LABEL, **{**FEW, **changed})


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="label: 2 is not one of 2 classes"):
        linear_probe(FEATURES, LABEL, **{**FEW, "classes": 2})
    with pytest.raises(ValueError, match="90 features but 89 labels"):
        linear_probe.__wrapped__(FEATURES, LABEL[:89], **FEW)


def test_a_probe_cannot_be_changed():
    probe = Probe(np.zeros((2, 3)), np.zeros(3), 1.0, (0.5,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe.strength = 2.0
