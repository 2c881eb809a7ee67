"""Any number of classes an example: numbers by hand and scikit-learn, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn import metrics

from kdjax import data, evaluate, losses, tasks, teacher
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.tasks import Classification, Regression, SeveralLabels, Softmaxes
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
N, DIM = 40, 5
LOGITS = RNG.normal(size=(N, DIM)).astype(np.float32)
LABELS = (RNG.random((N, DIM)) < 0.4).astype(np.float32)
TASK = SeveralLabels(dim=DIM)


def test_it_is_the_task_of_its_target():
    dataset = data.from_fields({"x": LOGITS}, LABELS, target=data.Several(DIM))
    assert tasks.of(dataset) == TASK
    assert dataset.labels.dtype == np.float32


def test_losses_are_binary_cross_entropies():
    p = expit(LOGITS.astype(np.float64))
    by_hand = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)).mean(-1)
    labels = LABELS.copy()
    labels[::4] = np.nan

    def loss(logits):
        return TASK.losses({"logits": logits}, jnp.asarray(labels)).sum()

    found = TASK.losses({"logits": jnp.asarray(LOGITS)}, jnp.asarray(labels))
    np.testing.assert_allclose(found, np.where(np.arange(N) % 4, by_hand, 0.0), rtol=1e-5)
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(LOGITS)))
    wanted = np.where((np.arange(N) % 4)[:, None], (p - LABELS) / DIM, 0.0)
    np.testing.assert_allclose(gradient, wanted, atol=1e-6)
    shown = TASK.has_label(jnp.asarray(labels))
    np.testing.assert_array_equal(shown, np.arange(N) % 4 > 0)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_distance_is_the_kl_of_the_sigmoids(temperature):
    other = RNG.normal(size=(N, DIM)).astype(np.float32)
    p, q = (expit(x.astype(np.float64) / temperature) for x in (other, LOGITS))
    by_hand = temperature**2 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(-1)
    given = jnp.asarray(LOGITS), jnp.asarray(other)
    found = losses.binary_kl(*given, temperature=temperature)
    np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-6)
    signal = TASK.signal("float32")
    assert isinstance(signal, teacher.Values)
    (part,) = signal.parts()
    term = TASK.taught(signal, Softmaxes(temperature, PLAIN_KD))
    np.testing.assert_allclose(term({"logits": given[0]}, {part: given[1]}), found, rtol=1e-6)
    mine, theirs = jax.grad(lambda a, b: losses.binary_kl(a, b).sum(), argnums=(0, 1))(*given)
    assert np.abs(mine).max() > 0
    assert not np.asarray(theirs).any()
    at_its_own = jax.grad(lambda a: losses.binary_kl(a, given[1]).sum())(given[1])
    np.testing.assert_allclose(at_its_own, 0.0, atol=1e-7)
    both = jnp.stack([given[1], given[0]], 1)
    weights = jnp.asarray([0.25, 0.75])
    apart = TASK.taught(signal, Softmaxes(temperature, PLAIN_KD), teacher_weights=weights)
    np.testing.assert_allclose(apart({"logits": given[0]}, {part: both}), 0.25 * found, atol=1e-6)


def test_sure_logits_stay_finite():
    sure = jnp.asarray([[100.0, -100.0]])
    found, gradient = jax.value_and_grad(lambda a: losses.binary_kl(a, -sure).sum())(sure)
    assert np.isfinite(found)
    assert np.isfinite(gradient).all()


def test_scores_are_those_of_scikit_learn():
    found = TASK.scores(LOGITS, LABELS)
    said, right = LOGITS > 0, LABELS > 0
    assert found["f1_micro"].value == pytest.approx(metrics.f1_score(right, said, average="micro"))
    assert found["f1_macro"].value == pytest.approx(metrics.f1_score(right, said, average="macro"))
    assert found["exact"].value == pytest.approx(metrics.accuracy_score(right, said))
    assert TASK.scores(2 * LABELS - 1, LABELS)["f1_micro"].value == 1.0
    with pytest.raises(ValueError, match="example 0 has no label"):
        TASK.scores(LOGITS, np.full((N, DIM), np.nan, np.float32))
    flipped = LOGITS.copy()
    flipped[0, 0] *= -1
    assert TASK.agreement(LOGITS, flipped).agreement == pytest.approx(1 - 1 / (N * DIM))


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (LABELS + 1, r"the label of example 0 of x has"),
        (np.where(np.eye(N, DIM) > 0, np.nan, LABELS), "the label of example 0 of x is not finite"),
        (LABELS[:, :2], r"labels of x have shape \[40, 2\]"),
    ],
)
def test_labels_that_are_none(labels, line):
    with pytest.raises(BadInput, match=line):
        data.from_fields({"x": LOGITS}, labels, target=data.Several(DIM), name="x")


def test_matthews_and_f1_of_two_classes():
    logits, labels = LOGITS[:, :2], (LABELS[:, 0] > 0).astype(np.int32)
    found = Classification(classes=2).scores(logits, labels)
    said = logits.argmax(-1)
    assert found["matthews"].value == pytest.approx(metrics.matthews_corrcoef(labels, said))
    assert found["f1_positive"].value == pytest.approx(metrics.f1_score(labels, said))
    three = np.asarray(RNG.integers(0, 9, (3, 3)))
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(three[i, j])]
    wanted = metrics.matthews_corrcoef(*zip(*pairs, strict=True))
    assert evaluate.matthews(three) == pytest.approx(wanted)
    assert evaluate.matthews(np.asarray([[3, 0], [4, 0]])) == 0.0  # it says one thing of all
    assert evaluate.f1(np.zeros(3, bool), np.zeros(3, bool)) == 0.0


def test_correlations():
    answers, targets = LOGITS[:, :1], (LOGITS[:, :1] + RNG.normal(size=(N, 1))).astype(np.float32)
    targets[:10] = targets[0]  # equal ranks
    found = Regression(dim=1).scores(answers, targets)
    assert found["pearson"].value == pytest.approx(stats.pearsonr(answers[:, 0], targets[:, 0])[0])
    assert found["spearman"].value == pytest.approx(
        stats.spearmanr(answers[:, 0], targets[:, 0])[0]
    )
    constant = np.ones_like(answers)
    assert Regression(dim=1).scores(constant, targets)["pearson"].value == 0.0
    assert "pearson" not in Regression(dim=1).scores(answers, constant)
