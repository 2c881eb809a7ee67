"""The CTC task: its losses under padding, what a teacher says, its scores by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from kdjax import data, losses, models, tasks, teacher, train
from kdjax.config.logit_losses.frames import BestPath, BlankSelection, FrameDKD
from kdjax.config.logit_losses.plain import PLAIN_KD
from kdjax.config.logit_losses.relations import DIST
from kdjax.config.teacher_free import TeacherFree
from kdjax.tasks import CTC, Classification, Softmaxes, Tagging
from kdjax.types import BadInput
from tests import own_tasks
from tests.some import some

TASK = CTC(alphabet=("a", "b", " "))
N, FRAMES, CLASSES = 5, 9, 4
RNG = np.random.default_rng(0)
LOGITS = (2.0 * RNG.normal(size=(N, FRAMES, CLASSES))).astype(np.float32)
SAID = (2.0 * RNG.normal(size=(N, FRAMES, CLASSES))).astype(np.float32)
SAID[..., 0] += 3.0  # most frames are blank
LENGTHS = np.asarray([9, 7, 5, 9, 3])
LABELS = np.asarray([[0, 1, 0], [0, 0, -1], [1, -1, -1], [-1, -1, -1], [1, 2, -1]], np.int32)
MASK = np.arange(FRAMES)[None] < LENGTHS[:, None]


def _kl(p, q, temperature=1.0):
    p, q = (x.astype(np.float64) / temperature for x in (p, q))
    p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1)


def test_a_dataset_of_transcripts_asks_it():
    labels, target = data.transcripts_of(
        ["ab", "a b"], ["0", "1"], alphabet=["a", "b", " "], name="x"
    )
    dataset = data.from_fields({"x": np.zeros((2, 1), np.float32)}, labels, target=target)
    assert tasks.of(dataset) == TASK
    assert TASK.classes == TASK.outputs == TASK.classes_of_answer("x") == 4
    assert TASK.names(target) == ("<blank>", "a", "b", " ")
    made_up = TASK.made_up(2)
    assert {*TASK.scores(made_up, labels)} >= {TASK.primary}


def test_its_loss_is_that_of_the_frames_that_count():
    outputs = {"logits": jnp.asarray(LOGITS), "mask": jnp.asarray(MASK)}
    found, shown = TASK.labelled(outputs, {"label": jnp.asarray(LABELS)})
    np.testing.assert_array_equal(shown, [True, True, True, False, True])
    for row in range(N):
        own = jnp.asarray(LOGITS[row : row + 1, : LENGTHS[row]])
        wanted = losses.ctc(own, jnp.asarray(LABELS[row : row + 1]))[0]
        np.testing.assert_allclose(found[row], wanted if shown[row] else 0.0, rtol=1e-6)
    (_, (weight, term)) = next(iter(TASK.terms().items()))
    np.testing.assert_array_equal(term(outputs, {"label": jnp.asarray(LABELS)}), found)
    assert weight == 1.0


def test_a_transcript_without_a_path_is_infinite():
    outputs = {"logits": jnp.asarray(LOGITS[:, :3])}
    labels = jnp.asarray([[0, 0, 0], [0, 1, 0], [0, 0, -1], [-1] * 3, [2, 2, 1]])
    found = TASK.losses(outputs, labels)
    np.testing.assert_array_equal(np.isinf(found), [True, False, False, False, True])
    np.testing.assert_array_equal(TASK.least_positions(np.asarray(labels)), [5, 3, 3, 0, 4])


@pytest.mark.parametrize("widths", some([(own_tasks.LONGEST, 640), (1200, 700)], (1200, 700)))
@pytest.mark.parametrize("of", ["ctc", "kl", "near", "late", "dkd", "path"])
def test_losses_and_gradients_are_those_of_any_padded_width(widths, of):
    """Of a whole network on samples, one example after the other and all of them in a batch."""
    dataset = own_tasks.spoken("train", n=6)
    rows = np.flatnonzero(dataset.lengths["audio"] <= min(widths))
    assert len(rows) >= 3
    model = CTC(alphabet=("a", "b", "c")).head(own_tasks.Frames(8))
    task = CTC(alphabet=("a", "b", "c"))
    raw, labels = dataset.read(rows), jnp.asarray(dataset.labels[rows])
    lengths = jnp.asarray(raw["audio_length"])

    def audio(width):
        wide = np.zeros((len(rows), max(width, own_tasks.LONGEST)), np.int16)
        wide[:, : own_tasks.LONGEST] = raw["audio"]
        return jnp.asarray(wide[:, :width])

    blank = {"audio": jnp.zeros((1, 300), jnp.int16), "audio_length": jnp.full(1, 300)}
    params, other = (
        jax.jit(lambda key: model.init(key, blank, train=True))(jax.random.key(i)) for i in (0, 1)
    )

    def term(width):
        if of == "ctc":
            return task.labelled, {"label": labels}
        inputs = {"audio": audio(width), "audio_length": lengths}
        said = jax.jit(lambda inputs: model.apply(other, inputs, train=False))(inputs)
        signal = task.signal("float32", positions=said["logits"].shape[1])
        how = {"kl": PLAIN_KD, "near": _NEAR, "late": _LATE, "dkd": _DKD, "path": _PATH}[of]
        softmaxes = Softmaxes(2.0, how)
        return task.taught(signal, softmaxes), signal.encode(said["logits"], said["mask"].sum(-1))

    def each(width):
        own, batch = term(width)

        def loss(params):
            inputs = {"audio": audio(width), "audio_length": lengths}
            found, weights = own(model.apply(params, inputs, train=True), batch)
            per_example = (found * weights).reshape(len(rows), -1).sum(-1)
            return per_example.sum(), per_example

        (_, found), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return found, slope

    (a, slope_a), (b, slope_b) = map(each, widths)
    assert np.abs(a).min() > 1e-3
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope_a))
    assert largest > 1e-2
    for x, y in zip(jax.tree.leaves(slope_a), jax.tree.leaves(slope_b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * max(1.0, largest))


_PATH = BestPath(name="best_path")
_NEAR = BlankSelection(name="blank_selection")
_LATE = BlankSelection(name="blank_selection", delay=2)
_DKD = FrameDKD(name="frame_dkd", around=1)


def test_an_answer_is_decoded_without_its_mask():
    """Behind the end the head says blank, whatever the features are."""
    dataset = own_tasks.spoken("test", n=8)
    model = CTC(alphabet=("a", "b", "c")).head(own_tasks.Frames(8))
    inputs = {name: jnp.asarray(x) for name, x in dataset.inputs().items()}
    params = model.init(jax.random.key(3), inputs, train=True)
    outputs = model.apply(params, inputs, train=False)
    logits, mask = np.asarray(outputs["logits"]), np.asarray(outputs["mask"])
    assert 0 < mask.mean() < 1
    behind = np.exp(logits[~mask])
    np.testing.assert_allclose(behind[:, 0] / behind.sum(-1), 1.0, atol=1e-7)
    labels = jnp.asarray(dataset.labels)
    task = CTC(alphabet=("a", "b", "c"))
    whole = task.losses({"logits": outputs["logits"]}, labels)
    np.testing.assert_allclose(whole, task.losses(outputs, labels), rtol=1e-5)


def _kept(k):
    """All logits of each frame, or the largest `k` and their tail, and what they are of `SAID`."""
    if k is None:
        signal = TASK.signal("float32", positions=FRAMES)
    else:
        top_k = teacher.TopK(classes=CLASSES, k=k, temperatures=(4.0,))
        signal = TASK.each(top_k, positions=FRAMES)
    return signal, signal.encode(jnp.asarray(SAID), jnp.asarray(LENGTHS))


@pytest.mark.parametrize("k", [None, CLASSES])
@pytest.mark.parametrize("around", [None, 0, 1, 2])
def test_frames_are_learned_where_they_are_chosen(around, k):
    signal, parts = _kept(k)
    loss = PLAIN_KD if around is None else BlankSelection(name="blank_selection", around=around)
    term = TASK.taught(signal, Softmaxes(4.0, loss))
    student = np.arange(FRAMES)[None] < 8  # its own mask
    outputs = {
        "logits": jnp.asarray(LOGITS),
        "mask": jnp.asarray(np.broadcast_to(student, MASK.shape)),
    }
    found, rows = term(outputs, parts)
    said = np.where(MASK, SAID.argmax(-1), 0)
    wanted = MASK & student
    if around is not None:
        near = [
            [said[i, max(0, t - around) : t + around + 1].any() for t in range(FRAMES)]
            for i in range(N)
        ]
        wanted = wanted & np.asarray(near)
        assert wanted.sum() < (MASK & student).sum() or around > 1
    np.testing.assert_array_equal(rows, wanted)
    kl = _kl(SAID, LOGITS, 4.0)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if k is None else {"rtol": 2e-2, "atol": 3e-3}
    np.testing.assert_allclose(np.asarray(found)[wanted], kl[wanted], **tolerance)
    # Of a batch that is padded to fewer frames than there may be.
    shorter = {"logits": outputs["logits"][:, :6], "mask": outputs["mask"][:, :6]}
    cut, rows = term(shorter, parts)
    np.testing.assert_allclose(cut, found[:, :6], rtol=1e-6)
    assert rows.shape == (N, 6)
    into = jax.grad(lambda x: (term({**outputs, "logits": x}, parts)[0] * wanted).sum())
    assert np.isfinite(into(outputs["logits"])).all()


@pytest.mark.parametrize("k", [None, CLASSES])
@pytest.mark.parametrize("delay", [1, 3, FRAMES - 1])
def test_a_student_that_is_late_learns_at_a_later_frame(delay, k):
    """What is said at a frame is compared with the student's `delay` frames behind, if it has them."""
    signal, parts = _kept(k)
    loss = BlankSelection(name="blank_selection", around=1, delay=delay)
    term = TASK.taught(signal, Softmaxes(4.0, loss))
    own = np.broadcast_to(np.arange(FRAMES)[None] < 8, MASK.shape)
    outputs = {"logits": jnp.asarray(LOGITS), "mask": jnp.asarray(own)}
    said = np.where(MASK, SAID.argmax(-1), 0)
    wanted, distance = np.zeros((N, FRAMES), bool), np.zeros((N, FRAMES))
    for i, t in itertools.product(range(N), range(FRAMES - delay)):
        near = said[i, max(0, t - 1) : t + 2].any()
        wanted[i, t] = near and MASK[i, t] and own[i, t + delay]
        distance[i, t] = _kl(SAID[i, t], LOGITS[i, t + delay], 4.0)
    found, rows = term(outputs, parts)
    np.testing.assert_array_equal(rows, wanted)
    assert wanted.any() or delay == FRAMES - 1
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if k is None else {"rtol": 2e-2, "atol": 3e-3}
    np.testing.assert_allclose(np.asarray(found)[wanted], distance[wanted], **tolerance)
    slope = jax.grad(lambda x: (term({**outputs, "logits": x}, parts)[0] * wanted).sum())(
        outputs["logits"]
    )
    taught = np.zeros((N, FRAMES), bool)
    taught[:, delay:] = wanted[:, : FRAMES - delay]
    np.testing.assert_array_equal(np.abs(np.asarray(slope)).max(-1) > 0, taught)
    _, unmasked = term({"logits": outputs["logits"]}, parts)
    assert not np.asarray(unmasked)[:, FRAMES - delay :].any()


def test_no_student_is_later_than_the_longest_recording():
    signal = TASK.signal("float32", positions=FRAMES)
    loss = FrameDKD(name="frame_dkd", delay=FRAMES)
    with pytest.raises(BadInput, match=r"^logits.delay: 9 of at most 9 frames; give fewer"):
        TASK.taught(signal, Softmaxes(1.0, loss))


def _dkd(p, q, *, beta, temperature):
    """Float64, of one frame: the target is what `p` holds likeliest."""
    target = p.argmax()
    p, q = (np.exp(x.astype(np.float64) / temperature) for x in (p, q))
    p, q = p / p.sum(), q / q.sum()
    pairs = [(p[target], q[target]), (1 - p[target], 1 - q[target])]
    rest = [np.delete(x, target) / (1 - x[target]) for x in (p, q)]
    tckd, nckd = (
        sum(a * np.log(a / b) for a, b in own) for own in (pairs, zip(*rest, strict=True))
    )
    return temperature**2 * (tckd + beta * nckd)


@pytest.mark.parametrize("around", [None, 1])
def test_the_target_of_a_frame_is_the_teachers_class(around):
    signal = TASK.signal("float32", positions=FRAMES)
    parts = signal.encode(jnp.asarray(SAID), jnp.asarray(LENGTHS))
    loss = FrameDKD(name="frame_dkd", beta=2.0, around=around)
    term = TASK.taught(signal, Softmaxes(4.0, loss))
    found, rows = term({"logits": jnp.asarray(LOGITS), "mask": jnp.asarray(MASK)}, parts)
    near = losses.near_symbols(jnp.asarray(np.where(MASK, SAID.argmax(-1), 0)), around=1)
    np.testing.assert_array_equal(rows, MASK if around is None else MASK & np.asarray(near))
    assert 0 < np.asarray(rows).sum() < MASK.size
    assert {*np.where(rows, SAID.argmax(-1), -1).ravel().tolist()} >= {0, 1, 2}
    for place in np.argwhere(rows):
        i, t = place
        wanted = _dkd(SAID[i, t], LOGITS[i, t], beta=2.0, temperature=4.0)
        np.testing.assert_allclose(found[i, t], wanted, rtol=1e-4, atol=1e-5)
    # Labels make no difference: there are none of frames.
    batch = {**parts, "label": jnp.asarray(LABELS)}
    np.testing.assert_array_equal(term({"logits": jnp.asarray(LOGITS)}, batch)[0], found)
    top_k = teacher.TopK(classes=CLASSES, k=2, temperatures=(4.0,))
    with pytest.raises(BadInput, match=r"^logits: frame_dkd needs all logits, and a top k is kept"):
        TASK.taught(TASK.each(top_k, positions=FRAMES), Softmaxes(4.0, loss))


def test_the_teachers_best_path_is_a_transcript():
    signal = TASK.signal("float32", positions=FRAMES)
    parts = signal.encode(jnp.asarray(SAID), jnp.asarray(LENGTHS))
    term = TASK.taught(signal, Softmaxes(1.0, BestPath(name="best_path")))
    found, rows = term({"logits": jnp.asarray(LOGITS)}, parts)
    np.testing.assert_array_equal(rows, [True] * N)
    for row in range(N):
        own = slice(row, row + 1), slice(0, LENGTHS[row])
        path = losses.best_path(jnp.asarray(SAID[own].argmax(-1)))
        wanted = losses.ctc(jnp.asarray(LOGITS[own]), path)
        np.testing.assert_allclose(found[row], wanted[0], rtol=1e-5)
    near = term({"logits": jnp.asarray(3.0 * SAID)}, parts)[0]
    assert (np.asarray(near) < np.asarray(found)).all()


def test_a_long_transcript_is_named_by_its_beginning():
    long = np.tile(np.arange(3), 400)
    assert len(TASK.label_text(long)) < 200
    assert TASK.label_text(long).startswith(TASK.label_text(long[:9]).rstrip("'"))


def test_what_is_of_a_blank_is_of_no_other_task():
    loss = BlankSelection(name="blank_selection")
    for task in (Classification(classes=4), Tagging(classes=4, positions=FRAMES)):
        with pytest.raises(
            BadInput, match=r"^logits: blank_selection is of frames that may be blank"
        ):
            task.taught(task.signal("float32"), Softmaxes(1.0, loss))
    signal = TASK.signal("float32", positions=FRAMES)
    with pytest.raises(BadInput, match=r"^logits: dist is of whole examples, and the task is ctc"):
        TASK.taught(signal, Softmaxes(1.0, DIST(name="dist")))


def test_a_student_has_the_frames_of_its_teacher():
    signal = TASK.signal("float16", positions=FRAMES)
    assert TASK.misfit(signal, "c", positions=FRAMES) is None
    assert (
        "the teacher of c answers at 9 frames of the longest recording, and the student at 4"
        in (TASK.misfit(signal, "c", positions=4))
    )
    more = CTC(alphabet=("a",)).misfit(signal, "c", positions=FRAMES)
    assert "has 4 classes, the student has 2" in more
    assert "does not answer what is asked of ctc" in TASK.misfit(
        teacher.Logits(classes=4), "c", positions=FRAMES
    )


def _logits_of(texts, alphabet=TASK.alphabet, frames=12):
    """Logits whose likeliest paths are these texts."""
    classes = np.zeros((len(texts), frames), int)
    for row, text in zip(classes, texts, strict=True):
        symbols = [alphabet.index(symbol) + 1 for symbol in text]
        row[: 2 * len(symbols) : 2] = symbols
    return 5.0 * np.eye(len(alphabet) + 1, dtype=np.float32)[classes]


def test_scores_by_hand():
    said = ["ab a", "b", "aa bb", "a"]
    heard = ["ab b", "", "aa b bb"[:5], "a"]  # one other word, one missing, one other, right
    labels, _ = data.transcripts_of(said, said, alphabet=TASK.alphabet, name="x")
    found = TASK.scores(_logits_of(heard), labels)
    assert TASK.transcribed(_logits_of(heard)) == heard
    words = np.asarray([1, 1, 1, 0]), np.asarray([2, 1, 2, 1])
    np.testing.assert_allclose(found["wer"].value, 3 / 6)
    np.testing.assert_allclose(found["substitutions"].value, 2 / 6)
    np.testing.assert_allclose(found["deletions"].value, 1 / 6)
    assert found["insertions"].value == 0.0
    np.testing.assert_allclose(found["cer"].value, 3 / 11)  # one each of the first three
    apart = words[0] - 0.5 * words[1]
    half = stats.t.ppf(0.975, 3) * np.sqrt(apart.var(ddof=1) / 4) / words[1].mean()
    np.testing.assert_allclose(found["wer"].ci95, (max(0, 0.5 - half), 0.5 + half))
    assert not any(score.higher_is_better for score in found.values())
    assert all(score.fraction for score in found.values())
    perfect = TASK.scores(_logits_of(said), labels)
    assert perfect["wer"].value == perfect["cer"].value == 0.0
    assert TASK.accuracy(_logits_of(said), labels) is None


def test_words_as_symbols_and_rates_above_one():
    task = CTC(alphabet=("one", "two"), unit="words")
    labels, _ = data.transcripts_of(["one two", "two"], ["0", "1"], alphabet=task.alphabet,
                                    unit="words", name="x")  # fmt: skip
    answers = _logits_of([("one", "one", "two", "two"), ("two", "one", "one")], task.alphabet)
    assert task.transcribed(answers) == ["one one two two", "two one one"]
    found = task.scores(answers, labels)
    np.testing.assert_allclose(found["wer"].value, 4 / 3)
    np.testing.assert_allclose(found["insertions"].value, 4 / 3)
    np.testing.assert_allclose(found["cer"].value, 16 / 10)
    assert found["wer"].limits == (0.0, np.inf)
    alone = task.scores(answers[1:], labels[1:])["wer"]
    assert (alone.value, alone.ci95) == (2.0, None)  # one example, more errors than words


def test_a_recording_without_a_transcript_is_not_scored():
    with pytest.raises(ValueError, match="example 3 has no label to be scored by"):
        TASK.scores(LOGITS, LABELS)
    with pytest.raises(ValueError, match="no examples to score"):
        TASK.scores(LOGITS[:0], LABELS[:0])


def test_agreement_is_of_transcripts():
    a, b = _logits_of(["ab", "b", "aab"]), _logits_of(["ab", "a", "ab"])
    assert TASK.agreement(a, a).agreement == 1.0
    np.testing.assert_allclose(TASK.agreement(a, b).agreement, 1 - 2 / 5)
    np.testing.assert_allclose(TASK.agreement(b, a).agreement, 1 - 2 / 6)
    silent = _logits_of(["", "", ""])
    assert TASK.agreement(silent, silent).agreement == 1.0
    assert TASK.agreement(a, silent).agreement == 0.0
    assert TASK.agreement(_logits_of(["abab", "", ""]), _logits_of(["b", "", ""])).agreement == 0.0
    # What changes no transcript is no disagreement, and is seen as a difference.
    near = TASK.agreement(a + 0.1, a)
    assert near.agreement == 1.0
    np.testing.assert_allclose(near.max_difference, 0.1, rtol=1e-5)
    assert TASK.agreed(0.9) == "90.0% of the symbols agree"


def test_what_needs_a_class_of_each_position_is_refused():
    for call, line in (
        (lambda: TASK.terms(label_smoothing=0.1), "label_smoothing: it needs a class at each"),
        (lambda: TASK.terms(teacher_free=TeacherFree()), "teacher_free: it needs a class at each"),
        (lambda: TASK.classes_of_example("x"), "x: it needs one class an example"),
        (lambda: TASK.check_accuracy("x"), "x: it needs a class of each example or position"),
    ):
        with pytest.raises(BadInput, match=f"^{line}.*the task is ctc; leave it out"):
            call()


def test_the_mean_of_several_parts_is_that_of_the_batch():
    """`weigh` counts transcripts and frames over the whole batch."""
    signal = TASK.signal("float32", positions=FRAMES)
    batch = {"label": jnp.asarray(LABELS), **signal.encode(jnp.asarray(SAID), jnp.asarray(LENGTHS))}

    def forward(params, state, batch, key):
        return {"logits": params, "mask": jnp.asarray(MASK)}, {}

    terms = {
        "ctc": (0.5, TASK.labelled),
        "kd": (0.5, TASK.taught(signal, Softmaxes(1.0, PLAIN_KD))),
    }
    state = train.TrainState(jnp.int32(0), jnp.asarray(LOGITS), (), {}, None)
    loss, (_, metrics) = train.weigh(forward, terms)(state.params, state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["loss/kd"], _kl(SAID, LOGITS)[MASK].mean(), rtol=1e-5)
    each, shown = TASK.labelled(
        {"logits": state.params, "mask": jnp.asarray(MASK)}, {"label": batch["label"]}
    )
    np.testing.assert_allclose(metrics["loss/ctc"], np.asarray(each)[shown].mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, 0.5 * (metrics["loss/kd"] + metrics["loss/ctc"]), rtol=1e-6)


def test_a_head_without_a_mask_says_all_frames():
    model = models.Linear(own_tasks.Frames(4), 3, "logits", behind=(0.0, -20.0, -20.0))
    audio = jnp.zeros((1, 200), jnp.int16)
    outputs, _ = model.init_with_output(jax.random.key(0), audio, train=False)
    assert {*outputs} == {"features", "logits"}
    assert np.abs(np.asarray(outputs["logits"])).max() < 20
