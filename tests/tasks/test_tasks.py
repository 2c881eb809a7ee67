"""Every number of a task against NumPy by hand, or scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from kdjax import data, evaluate, tasks, teacher, train
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.config.logit_losses.relations import DIST
from kdjax.config.teacher_free import TeacherFree
from kdjax.tasks import Classification, Embedding, Regression, Softmaxes, Tagging
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
N, DIM, POSITIONS, CLASSES = 7, 3, 5, 4
ANSWERS = RNG.normal(size=(N, DIM)).astype(np.float32)
VALUES = RNG.normal(size=(N, DIM)).astype(np.float32)
LOGITS = RNG.normal(size=(N, POSITIONS, CLASSES)).astype(np.float32)
TAGS = RNG.integers(-1, CLASSES, size=(N, POSITIONS)).astype(np.int32)
TAGS[:, 0] = np.arange(N) % CLASSES  # each has one
REGRESSION, EMBEDDING = Regression(dim=DIM), Embedding(dim=DIM)
TAGGING = Tagging(classes=CLASSES, positions=POSITIONS)
KL = Softmaxes(4.0, PLAIN_KD)


def _cosines(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def _log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _nll(logits, labels):
    found = np.take_along_axis(_log_softmax(logits), np.maximum(labels, 0)[..., None], -1)
    return -found[..., 0]


def _objective(task, terms):
    """Loss and gradient with respect to the answers."""

    def forward(params, state, batch, key):
        return {task.output: params, **batch.get("more", {})}, {}

    objective = train.weigh(forward, terms)

    def run(answers, batch):
        state = train.TrainState(jnp.int32(0), answers, (), {}, None)
        value = jax.value_and_grad(lambda a: objective(a, state, batch, jax.random.key(0))[0])
        return jax.device_get(value(jnp.asarray(answers)))

    return run


def _given(task):
    """Answers and labels, some of which are hidden."""
    if task is TAGGING:
        return LOGITS, TAGS
    hidden = np.array(VALUES)
    hidden[[1, 4]] = np.nan
    return ANSWERS, hidden


def _each(task, labels):
    """Every loss; NaN where there is no label."""
    if task is TAGGING:
        return np.where(labels >= 0, _nll(LOGITS, labels), np.nan)
    if task is REGRESSION:
        return ((ANSWERS - labels) ** 2).mean(-1)
    return 1.0 - _cosines(ANSWERS, labels)


EVERY = pytest.mark.parametrize("task", [REGRESSION, EMBEDDING, TAGGING], ids=lambda t: t.name)


@EVERY
def test_the_loss_is_the_mean_of_what_has_a_label(task):
    answers, labels = _given(task)
    each = _each(task, labels)
    run = _objective(task, {task.loss: (1.0, task.labelled)})
    loss, gradient = run(answers, {"label": jnp.asarray(labels)})
    np.testing.assert_allclose(loss, np.nanmean(each), rtol=1e-5)
    assert np.isfinite(gradient).all()
    known = ~np.isnan(each)
    assert not gradient[~known].any()
    assert (np.abs(gradient[known]).sum(-1) > 0).all()


@EVERY
def test_what_is_hidden_changes_nothing_and_all_hidden_is_zero(task):
    answers, _ = _given(task)
    target = {"regression": data.Values(DIM), "embedding": data.Vectors(DIM)}.get(
        task.name, data.Tags(CLASSES, POSITIONS)
    )
    hidden = jnp.asarray(target.hidden(N))
    assert not np.asarray(task.has_label(hidden)).any()
    loss, gradient = _objective(task, {task.loss: (1.0, task.labelled)})(answers, {"label": hidden})
    assert loss == 0
    assert not gradient.any()


@EVERY
def test_mixed_examples_have_both_labels_in_their_shares(task):
    answers, labels = _given(task)
    each = _each(task, labels)
    weight = np.linspace(0.1, 0.9, N).astype(np.float32)
    order = np.roll(np.arange(N), 1)
    batch = {"label": labels, "partner_label": labels[order], "weight": weight}
    loss, _ = _objective(task, {task.loss: (1.0, task.labelled)})(
        answers, jax.tree.map(jnp.asarray, batch)
    )
    other = _each(task, labels[order])
    shares = weight.reshape(-1, *(1,) * (each.ndim - 1))
    total = np.nansum(shares * each) + np.nansum((1 - shares) * other)
    count = (shares * ~np.isnan(each)).sum() + ((1 - shares) * ~np.isnan(other)).sum()
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)


@pytest.mark.parametrize("most", [8, 24])
def test_padding_changes_no_loss(most):
    """Supervised and taught, and not the gradient where there is no padding."""

    def padded(x, value):
        behind = np.full((N, most - POSITIONS, *x.shape[2:]), value, x.dtype)
        return jnp.asarray(np.concatenate([x, behind], axis=1))

    said = np.asarray(RNG.normal(size=LOGITS.shape), np.float32)
    longer = Tagging(classes=CLASSES, positions=most)
    found = []
    for task, fill in ((TAGGING, lambda x, value: jnp.asarray(x)), (longer, padded)):
        mask = fill(np.ones((N, POSITIONS), bool), False)
        signal = task.signal("float32")
        batch = {"label": fill(TAGS, -1), "more": {"mask": mask}}
        batch |= signal.encode(fill(said, 7.0))
        terms = {"ce": (0.5, task.labelled), "kd": (0.5, task.taught(signal, KL))}
        found.append(_objective(task, terms)(fill(LOGITS, 3.0), batch))
    (loss, gradient), (loss_padded, gradient_padded) = found
    np.testing.assert_allclose(loss_padded, loss, rtol=1e-6)
    np.testing.assert_allclose(gradient_padded[:, :POSITIONS], gradient, atol=1e-7)
    assert not gradient_padded[:, POSITIONS:].any()


def test_a_stage_on_labelled_examples_alone_counts_the_positions_that_have_one():
    ((_, term),) = TAGGING.terms(label_smoothing=0.2).values()
    losses, shown = term({"logits": jnp.asarray(LOGITS)}, {"label": jnp.asarray(TAGS)})
    np.testing.assert_array_equal(shown, TAGS >= 0)
    smooth = 0.8 * _nll(LOGITS, TAGS) - 0.2 * _log_softmax(LOGITS).mean(-1)
    np.testing.assert_allclose(np.asarray(losses)[TAGS >= 0], smooth[TAGS >= 0], rtol=1e-5)
    plain = REGRESSION.terms()["mse"][1](
        {"values": jnp.asarray(ANSWERS)}, {"label": jnp.asarray(VALUES)}
    )
    np.testing.assert_allclose(plain, ((ANSWERS - VALUES) ** 2).mean(-1), rtol=1e-5)


@pytest.mark.parametrize("task", [REGRESSION, EMBEDDING], ids=lambda t: t.name)
def test_a_student_learns_the_answer_of_its_teacher(task):
    signal = task.signal("float32")
    kept = signal.encode(jnp.asarray(VALUES))
    term = task.taught(signal, KL)
    found = term({task.output: jnp.asarray(ANSWERS)}, kept)
    wanted = (
        ((ANSWERS - VALUES) ** 2).mean(-1)
        if task is REGRESSION
        else 1.0 - _cosines(ANSWERS, VALUES)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    into = jax.grad(lambda x: term({task.output: jnp.asarray(ANSWERS)}, {**kept, **x}).sum())(kept)
    assert not any(np.asarray(x).any() for x in into.values())

    apart = teacher.Apart(of=signal, teachers=2)
    both = apart.encode(jnp.stack([jnp.asarray(VALUES), jnp.asarray(ANSWERS)], axis=1))
    weighed = task.taught(apart, KL, teacher_weights=jnp.asarray([0.25, 0.75]))
    found = weighed({task.output: jnp.asarray(ANSWERS)}, both)
    np.testing.assert_allclose(found, 0.25 * wanted, rtol=1e-5, atol=1e-6)


def test_teachers_together_say_the_mean_of_their_values():
    both = jnp.stack([jnp.asarray(VALUES), jnp.asarray(ANSWERS)], axis=1)
    found = REGRESSION.together(both, jnp.asarray([0.25, 0.75]))
    np.testing.assert_allclose(found, 0.25 * VALUES + 0.75 * ANSWERS, rtol=1e-5)
    both = jnp.stack([jnp.asarray(LOGITS), jnp.asarray(LOGITS[::-1])], axis=1)
    found = TAGGING.together(both, jnp.asarray([0.25, 0.75]))
    shares = 0.25 * np.exp(_log_softmax(LOGITS)) + 0.75 * np.exp(_log_softmax(LOGITS[::-1]))
    np.testing.assert_allclose(found, np.log(shares), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kept", [None, teacher.TopK(classes=CLASSES, k=CLASSES, temperatures=(4.0,))]
)
def test_positions_are_learned_where_neither_side_has_padding(kept):
    signal = TAGGING.signal("float32") if kept is None else TAGGING.each(kept)
    assert isinstance(signal, teacher.Positions)
    wanted = np.asarray(RNG.normal(size=LOGITS.shape), np.float32)
    lengths = np.array([5, 4, 3, 2, 1, 5, 4], np.int32)
    parts = signal.encode(jnp.asarray(wanted), jnp.asarray(lengths))
    mask = jnp.asarray(np.arange(POSITIONS)[None] < 4) & jnp.ones((N, 1), bool)
    found, rows = TAGGING.taught(signal, KL)({"logits": jnp.asarray(LOGITS), "mask": mask}, parts)
    inside = np.arange(POSITIONS)[None] < np.minimum(lengths, 4)[:, None]
    np.testing.assert_array_equal(rows, inside)
    p, q = _log_softmax(wanted / 4), _log_softmax(LOGITS / 4)
    kl = 16 * (np.exp(p) * (p - q)).sum(-1)
    np.testing.assert_allclose(np.asarray(found)[inside], kl[inside], rtol=2e-2, atol=2e-3)
    # Without lengths all positions are kept, and without a mask all of them count.
    parts = signal.encode(jnp.asarray(wanted))
    _, rows = TAGGING.taught(signal, KL)({"logits": jnp.asarray(LOGITS)}, parts)
    assert np.asarray(rows).all()


def test_a_loss_of_whole_examples_is_none_of_positions():
    with pytest.raises(
        BadInput, match=r"^logits: dist is of whole examples, and the task is tagging"
    ):
        TAGGING.taught(TAGGING.signal("float32"), Softmaxes(1.0, DIST(name="dist")))


def test_scores_of_values_are_those_of_scikit_learn():
    found = REGRESSION.scores(ANSWERS, VALUES)
    assert REGRESSION.primary == "mse"
    np.testing.assert_allclose(found["mse"].value, metrics.mean_squared_error(VALUES, ANSWERS))
    np.testing.assert_allclose(found["mae"].value, metrics.mean_absolute_error(VALUES, ANSWERS))
    np.testing.assert_allclose(found["r2"].value, metrics.r2_score(VALUES, ANSWERS), rtol=1e-6)
    each = ((ANSWERS.astype(np.float64) - VALUES) ** 2).mean(-1)
    ends = stats.t.interval(0.95, N - 1, each.mean(), stats.sem(each))
    np.testing.assert_allclose(found["mse"].ci95, np.maximum(ends, 0.0))
    assert found["r2"].ci95 is None
    directions = {name: score.higher_is_better for name, score in found.items()}
    assert directions == {
        "mse": False,
        "mae": False,
        "r2": True,
        "pearson": True,
        "spearman": True,
    }
    one = REGRESSION.scores(ANSWERS[:1], VALUES[:1])
    assert [*one] == ["mse", "mae"]
    assert one["mse"].ci95 is None


def test_the_score_of_vectors_is_their_mean_cosine():
    (found,) = EMBEDDING.scores(ANSWERS, VALUES).values()
    each = _cosines(ANSWERS.astype(np.float64), VALUES)
    np.testing.assert_allclose(found.value, each.mean())
    ends = stats.t.interval(0.95, N - 1, each.mean(), stats.sem(each))
    np.testing.assert_allclose(found.ci95, np.clip(ends, -1, 1))
    (same,) = EMBEDDING.scores(3.0 * VALUES, VALUES).values()
    np.testing.assert_allclose(same.value, 1.0)


def test_scores_of_positions_are_of_those_that_have_a_label():
    found = TAGGING.scores(LOGITS, TAGS)
    shown, said = TAGS >= 0, LOGITS.argmax(-1)
    right = (said == TAGS)[shown]
    np.testing.assert_allclose(found["accuracy"].value, right.mean())
    np.testing.assert_allclose(
        found["f1_macro"].value, metrics.f1_score(TAGS[shown], said[shown], average="macro")
    )
    # The ratio of two sums over examples, by the variance of its linear part.
    ratio, of = right.mean(), shown.sum(-1)
    apart = ((said == TAGS) & shown).sum(-1) - ratio * of
    half = stats.t.ppf(0.975, N - 1) * np.sqrt(apart.var(ddof=1) / N) / of.mean()
    low, high = found["accuracy"].ci95
    np.testing.assert_allclose((low, high), np.clip((ratio - half, ratio + half), 0, 1))


def test_an_interval_of_positions_is_wider_where_examples_are_of_a_piece():
    """As many positions, right or wrong together in an example, or as it comes."""
    n = 60
    labels = np.zeros((n, POSITIONS), np.int32)
    answers = np.zeros((n, POSITIONS, CLASSES), np.float32)
    whole, scattered = np.array(answers), np.array(answers)
    whole[: n // 2, :, 1] = 1.0
    scattered.reshape(-1, CLASSES)[::2, 1] = 1.0
    a, b = (TAGGING.scores(x, labels)["accuracy"] for x in (whole, scattered))
    assert a.value == b.value == 0.5
    assert a.ci95[1] - a.ci95[0] > 2 * (b.ci95[1] - b.ci95[0])
    perfect = TAGGING.scores(answers, labels)["accuracy"]
    np.testing.assert_allclose(perfect.ci95, stats.binomtest(n, n).proportion_ci(method="wilson"))


@EVERY
def test_a_hidden_target_is_not_scored(task):
    answers, labels = _given(task)
    labels = np.array(labels)
    labels[4] = -1 if task is TAGGING else np.nan
    labels[[0, 1]] = labels[[0, 0]] if task is TAGGING else VALUES[[0, 1]]
    with pytest.raises(ValueError, match="example 4 has no label to be scored by"):
        task.scores(answers, labels)
    with pytest.raises(ValueError, match="no examples to score"):
        task.scores(answers[:0], labels[:0])


@EVERY
def test_two_models_agree_wholly_or_less(task):
    answers, _ = _given(task)
    same = task.agreement(answers, answers)
    assert same.max_difference == 0
    np.testing.assert_allclose(same.agreement, 1.0)
    near = answers + 1e-3 * RNG.normal(size=answers.shape).astype(np.float32)
    far = answers[::-1]
    nearer, farther = (task.agreement(x, answers).agreement for x in (near, far))
    assert 1.0 >= nearer > 0.99 > farther
    broken = np.array(answers)
    broken[0] = np.nan
    found = task.agreement(broken, answers)
    assert found.max_difference == np.inf
    assert found.agreement < 1
    assert "agree" in task.agreed(nearer)


def test_agreements_by_hand():
    other = VALUES
    r2 = metrics.r2_score(other, ANSWERS)
    np.testing.assert_allclose(REGRESSION.agreement(ANSWERS, other).agreement, r2, rtol=1e-6)
    cosine = _cosines(ANSWERS.astype(np.float64), other).mean()
    np.testing.assert_allclose(EMBEDDING.agreement(ANSWERS, other).agreement, cosine)
    both = LOGITS.argmax(-1) == LOGITS[::-1].argmax(-1)
    np.testing.assert_allclose(
        TAGGING.agreement(LOGITS, LOGITS[::-1], TAGS).agreement, both[TAGS >= 0].mean()
    )
    np.testing.assert_allclose(TAGGING.agreement(LOGITS, LOGITS[::-1]).agreement, both.mean())


def test_r2_of_a_value_that_never_varies_is_that_of_scikit_learn():
    targets = np.stack([np.ones(N), VALUES[:, 0]], axis=1)
    for answers in (targets, targets + 0.5):
        wanted = metrics.r2_score(targets, answers)
        np.testing.assert_allclose(evaluate.r2(answers, targets), wanted)


def test_a_dataset_asks_its_task():
    x = np.zeros((N, 1), np.float32)
    for target, labels, task in (
        (data.Classes(CLASSES), np.arange(N) % CLASSES, Classification(classes=CLASSES)),
        (data.Values(DIM), VALUES, REGRESSION),
        (data.Vectors(DIM), VALUES, EMBEDDING),
        (data.Tags(CLASSES, POSITIONS), TAGS, TAGGING),
    ):
        dataset = data.from_fields({"x": x}, labels, target=target)
        assert tasks.of(dataset) == task
        made_up = task.made_up(N)
        assert {*task.scores(made_up, dataset.labels)} >= {task.primary}


@pytest.mark.parametrize("task", [REGRESSION, EMBEDDING], ids=lambda t: t.name)
def test_what_needs_classes_is_refused(task):
    for call, line in (
        (
            lambda: task.terms(label_smoothing=0.1),
            "label_smoothing: it needs classes, and the task",
        ),
        (lambda: task.terms(teacher_free=TeacherFree()), "teacher_free: it needs classes"),
        (lambda: task.classes_of_answer("config.x"), "config.x: it needs classes"),
        (lambda: task.classes_of_example("config.x"), "config.x: it needs one class an example"),
        (
            lambda: task.check_accuracy("config.x"),
            "config.x: it needs classes",
        ),
    ):
        with pytest.raises(BadInput, match=f"^{line}"):
            call()
    assert Classification(classes=3).classes_of_example("x") == TAGGING.classes_of_answer("x") - 1
    with pytest.raises(
        BadInput, match=r"^x: it needs one class an example, and the task is tagging"
    ):
        TAGGING.classes_of_example("x")


def test_a_signal_of_another_task_does_not_fit():
    fits = Classification(classes=CLASSES)
    assert fits.misfit(teacher.Logits(classes=CLASSES), "c") is None
    assert "has 9 classes, the student has 4" in fits.misfit(teacher.Logits(classes=9), "c")
    assert "says nothing of classes" in fits.misfit(teacher.Values(dim=CLASSES), "c")
    positions = TAGGING.signal("float16")
    assert TAGGING.misfit(positions, "c") is None
    assert "does not answer what is asked" in fits.misfit(positions, "c")
    assert REGRESSION.misfit(teacher.Values(dim=DIM, dtype="float16"), "c") is None
    assert "regression learns" in REGRESSION.misfit(teacher.Values(dim=DIM + 1), "c")
    assert "regression learns" in REGRESSION.misfit(teacher.Embedding(dim=DIM), "c")
