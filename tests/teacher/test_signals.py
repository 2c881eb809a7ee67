import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import kd_kl_top_k
from kdjax.teacher import (
    Apart,
    Embedding,
    Logits,
    Positions,
    TeacherCache,
    TopK,
    check,
    describe,
    write,
)
from kdjax.types import BadInput

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 3, (6, 11)), jnp.float32)
ROUNDING = {"float32": 1e-5, "float16": 2e-3}
"""Relative, of a number that was float32 on its way."""


def log_softmax(logits, axis=-1):
    """In float64."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis, keepdims=True))


def top_k(logits, k, temperatures):
    """In float64, row by row: the k best and what all others have together."""
    rows = log_softmax(logits)
    indices = np.argsort(-rows, axis=-1, kind="stable")[:, :k]
    tails = np.full((len(rows), len(temperatures)), -np.inf)
    for i, row in enumerate(rows):
        others = np.delete(row, indices[i])
        for j, temperature in enumerate(temperatures):
            if others.size:
                tails[i, j] = np.log(np.exp(others / temperature).sum())
    return indices, np.take_along_axis(rows, indices, -1), tails


@functools.cache
def _compiled(signal, name):
    return jax.jit(getattr(signal, name))


def encoded(signal, *args):
    """As the cache stage does it: compiled."""
    return _compiled(signal, "encode")(*args)


def bytes_of(signal):
    return sum(part.bytes for part in signal.parts().values())


def agree(signal, found, leading):
    """Arrays are what `parts` says they are."""
    assert found.keys() == signal.parts().keys()
    for name, part in signal.parts().items():
        assert (found[name].dtype, found[name].shape) == (part.dtype, (*leading, *part.shape))
    return True


SIGNALS = [
    Logits(classes=11, dtype="float32"),
    TopK(classes=11, k=3, temperatures=(1.0, 4.0), dtype="float32"),
    TopK(classes=11, k=11, temperatures=(1.0, 2.0)),
    Embedding(dim=11),
]
each_signal = pytest.mark.parametrize("signal", SIGNALS, ids=repr)


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ROUNDING)
def test_logits_and_embeddings_are_kept_as_they_are(dtype):
    for signal, name in (
        (Logits(classes=11, dtype=dtype), "teacher_logits"),
        (Embedding(dim=11, dtype=dtype), "teacher_embedding"),
    ):
        found = encoded(signal, LOGITS)
        assert agree(signal, found, (6,))
        np.testing.assert_array_equal(found[name], np.asarray(LOGITS).astype(dtype))


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("k", "temperatures"), [
    (1, (1.0,)), (3, (0.5, 1.0, 4.0)), (10, (4.0, 1.0)), (11, (1.0, 2.0)),
])  # fmt: skip
def test_top_k_golden(dtype, k, temperatures):
    signal = TopK(classes=11, k=k, temperatures=temperatures, dtype=dtype)
    found = encoded(signal, LOGITS)
    assert agree(signal, found, (6,))
    indices, log_probs, tails = top_k(LOGITS, k, temperatures)
    np.testing.assert_array_equal(found["teacher_indices"], indices)
    np.testing.assert_allclose(found["teacher_log_probs"], log_probs, rtol=ROUNDING[dtype])
    np.testing.assert_allclose(found["teacher_log_tail"], tails, rtol=ROUNDING[dtype])
    assert bool(np.isneginf(tails).all()) == (k == 11)


@pytest.mark.parametrize(("classes", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_the_last_class_fits(classes, dtype):
    signal = TopK(classes=classes, k=2)
    logits = jnp.zeros((1, classes)).at[0, -1].set(9.0).at[0, -2].set(8.0)
    found = encoded(signal, logits)
    assert found["teacher_indices"].dtype == dtype
    assert found["teacher_indices"].tolist() == [[classes - 1, classes - 2]]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bytes(dtype):
    size = {"float16": 2, "float32": 4}[dtype]
    for k in range(1, 65):
        for classes in {64, 1000, 2**16} - {*range(k)}:
            assert bytes_of(TopK(classes=classes, k=k, dtype=dtype)) == (2 + size) * k + size
        assert bytes_of(TopK(classes=2**16 + 1, k=k, dtype=dtype)) == (4 + size) * k + size
    assert bytes_of(TopK(classes=1000, k=10)) == 4 * 10 + 2
    assert bytes_of(TopK(classes=1000, k=10, temperatures=(1.0, 2.0, 4.0))) == 4 * 10 + 6
    assert bytes_of(Logits(classes=1000, dtype=dtype)) == 1000 * size
    assert bytes_of(Embedding(dim=384, dtype=dtype)) == 384 * size
    assert bytes_of(Apart(of=TopK(classes=1000, k=10), teachers=3)) == 3 * 42
    assert bytes_of(Positions(of=Embedding(dim=8), most=5)) == 5 * 8 * 2 + 4


@each_signal
def test_teachers_apart_are_side_by_side(signal):
    apart = Apart(of=signal, teachers=3)
    outputs = jnp.asarray(RNG.normal(0, 3, (6, 3, 11)), jnp.float32)
    found = encoded(apart, outputs)
    assert agree(apart, found, (6,))
    for i in range(3):
        for name, values in encoded(signal, outputs[:, i]).items():
            np.testing.assert_array_equal(found[name][:, i], values)


LENGTHS = np.array([0, 1, 4, 5, 2, 5], np.int32)
MOST = 5


@each_signal
def test_positions_are_kept_up_to_the_length(signal):
    positions = Positions(of=signal, most=MOST)
    outputs = jnp.asarray(RNG.normal(0, 3, (6, MOST, 11)), jnp.float32)
    behind = np.arange(MOST)[None, :] >= LENGTHS[:, None]
    # Nothing behind the end is looked at: an encoder may leave anything there.
    blind = jnp.where(behind[..., None], jnp.nan, outputs)
    found = encoded(positions, blind, jnp.asarray(LENGTHS))
    assert agree(positions, found, (6,))
    assert found["teacher_length"].tolist() == LENGTHS.tolist()
    np.testing.assert_array_equal(positions.mask(found["teacher_length"]), ~behind)
    for name, values in encoded(signal, outputs).items():
        np.testing.assert_array_equal(found[name], np.where(behind[..., None], 0, values))


# --- differences ----------------------------------------------------------------------------------


def difference(signal, stored, *args):
    found = _compiled(signal, "difference")(stored, *args)
    assert found.dtype == jnp.float32
    return np.asarray(found)


@each_signal
def test_there_is_no_difference_from_itself(signal):
    # Of numbers of about 20, the last bit of a float16 is 2^-6.
    atol = {"float16": 2**-7, "float32": 1e-5}[signal.dtype]
    found = difference(signal, encoded(signal, LOGITS), LOGITS)
    assert found.shape == (6,)
    assert (found <= atol).all()


@each_signal
def test_a_number_that_was_changed_is_a_difference(signal):
    right = encoded(signal, LOGITS)
    for name, values in right.items():
        if not jnp.issubdtype(values.dtype, jnp.floating) or jnp.isinf(values).any():
            continue
        for place in (0, values.shape[1] - 1):
            stored = {**right, name: values.at[2, place].add(-3.0)}
            found = difference(signal, stored, LOGITS)
            assert found[2] == pytest.approx(3.0, abs=0.05)
            assert (np.delete(found, 2) < 0.05).all()


@each_signal
def test_another_teacher_is_a_difference(signal):
    """What it says of any class, of those that are kept and of all others."""
    stored = encoded(signal, LOGITS)
    for label in range(11):
        found = difference(signal, stored, LOGITS.at[2, label].add(3.0))
        assert found[2] > 0.05
        assert (np.delete(found, 2) < 0.05).all()


def test_a_tie_in_another_order_is_no_difference():
    signal = TopK(classes=5, k=2, dtype="float32")
    logits = jnp.array([[1.0, 3.0, 2.0, 2.0, 0.0]])
    stored = encoded(signal, logits)
    assert stored["teacher_indices"].tolist() == [[1, 2]]
    for indices in ([1, 2], [1, 3]):
        tied = {**stored, "teacher_indices": jnp.array([indices], jnp.uint16)}
        assert difference(signal, tied, logits) <= 1e-6


def test_a_wrong_class_is_a_difference():
    signal = TopK(classes=5, k=2, dtype="float32")
    logits = jnp.array([[1.0, 3.0, 2.0, 1.5, 0.0]])
    stored = encoded(signal, logits)
    # Its own log-probability beside it, and the mass of all others too: it is not among the best.
    indices, log_probs = [1, 3], log_softmax(logits)[0, [1, 3]]
    others = np.log(np.exp(log_softmax(logits)[0, [0, 2, 4]]).sum())
    wrong = {
        "teacher_indices": jnp.array([indices], jnp.uint16),
        "teacher_log_probs": jnp.array([log_probs], jnp.float32),
        "teacher_log_tail": jnp.array([[others]], jnp.float32),
    }
    assert difference(signal, wrong, logits) == pytest.approx(0.5, rel=1e-5)
    # The right numbers beside another class, and one class twice.
    for indices in ([1, 0], [2, 1], [1, 1]):
        wrong = {**stored, "teacher_indices": jnp.array([indices], jnp.uint16)}
        assert difference(signal, wrong, logits) > 0.4


def test_classes_that_are_impossible_are_no_difference():
    signal = TopK(classes=5, k=2, temperatures=(1.0, 4.0))
    logits = jnp.array([[1.0, 3.0, -jnp.inf, -jnp.inf, -jnp.inf]])
    stored = encoded(signal, logits)
    assert jnp.isneginf(stored["teacher_log_tail"]).all()
    assert difference(signal, stored, logits) <= 1e-3
    assert difference(signal, stored, logits.at[0, 2].set(1.0)) > 0.1


@each_signal
def test_the_worst_teacher_and_the_worst_position_count(signal):
    outputs = jnp.asarray(RNG.normal(0, 3, (6, MOST, 11)), jnp.float32)
    live = outputs.at[2, 1, 4].add(3.0).at[4, 2, 4].add(3.0)
    apart = Apart(of=signal, teachers=MOST)
    found = difference(apart, encoded(apart, outputs), live)
    assert (found > 0.05).tolist() == [False, False, True, False, True, False]
    # Only four positions of row 2 are kept, and two of row 4: the change of the latter is behind.
    positions = Positions(of=signal, most=MOST)
    stored = encoded(positions, outputs, jnp.asarray(LENGTHS))
    behind = np.arange(MOST)[None, :] >= LENGTHS[:, None]
    live = jnp.where(behind[..., None], jnp.nan, live)
    found = difference(positions, stored, live)
    assert (found > 0.05).tolist() == [False, False, True, False, False, False]


# --- a cache of sequences -------------------------------------------------------------------------

FRAMES = np.arange(300, dtype=np.uint32) * 7
VIEWS = 2


@functools.cache
def speech(most):
    """Features of up to 20 frames, another number of them for each view: `(outputs, lengths)`."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 21, (VIEWS, len(FRAMES)), np.int32)
    lengths[0, :2] = 0, 20
    outputs = np.zeros((VIEWS, len(FRAMES), most, 8), np.float32)
    outputs[:, :, :20] = rng.normal(size=(VIEWS, len(FRAMES), 20, 8))
    return outputs, lengths


def heard(folder, signal):
    outputs, lengths = speech(signal.most)
    write(
        folder,
        ids=FRAMES,
        views=VIEWS,
        signal=signal,
        ask=lambda rows, view: encoded(signal, outputs[view, rows], lengths[view, rows]),
        batch=100,
        binding={"signal": describe(signal)},
    )
    return TeacherCache.open(folder, expected={"signal": describe(signal)})


@pytest.mark.parametrize("of", [Embedding(dim=8), TopK(classes=8, k=2)], ids=repr)
def test_sequences_of_all_lengths_come_back(tmp_path, of):
    signal = Positions(of=of, most=20)
    cache = heard(tmp_path / "cache", signal)
    assert cache.parts == signal.parts()
    outputs, lengths = speech(20)
    rows = np.random.default_rng(2).permutation(len(FRAMES))[:50]
    views = np.arange(50, dtype=np.uint32) % VIEWS
    rows[:2], views[:2] = (0, 1), (0, 0)  # none and all
    found = cache.read(FRAMES[rows], views)
    assert found["teacher_length"].tolist() == lengths[views, rows].tolist()
    assert {0, 20} <= {*found["teacher_length"].tolist()}
    outputs = jnp.asarray(outputs[views, rows])
    wanted = encoded(signal, outputs, jnp.asarray(lengths[views, rows]))
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
        if name != "teacher_length":
            assert not found[name][0].any()
    live = {name: jnp.asarray(values) for name, values in found.items()}
    assert (difference(signal, live, outputs) <= 2**-9).all()


def test_a_student_of_frames_learns_from_a_cache_what_it_would_from_its_teacher(tmp_path):
    """Value and gradient of a KL at every frame of every sequence, the padding left out."""
    signal = Positions(of=TopK(classes=8, k=3, temperatures=(2.0,), dtype="float32"), most=20)
    cache = heard(tmp_path / "cache", signal)
    outputs, lengths = speech(20)
    student = jnp.asarray(np.random.default_rng(3).normal(size=(40, 20, 8)), jnp.float32)
    rows, view = np.arange(40), np.ones(40, np.uint32)

    @jax.jit
    @jax.value_and_grad
    def loss(student, parts):
        at_each = kd_kl_top_k(
            student,
            parts["teacher_indices"],
            parts["teacher_log_probs"],
            parts["teacher_log_tail"][..., 0],
            temperature=2.0,
        )
        kept = signal.mask(parts["teacher_length"])
        return jnp.where(kept, at_each, 0.0).sum() / kept.sum()

    found, grads = loss(student, cache.read(FRAMES[rows], view))
    live = encoded(signal, jnp.asarray(outputs[1, rows]), jnp.asarray(lengths[1, rows]))
    wanted, wanted_grads = loss(student, live)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(grads, wanted_grads, rtol=1e-6, atol=1e-9)
    assert found > 0.1
    behind = np.asarray(np.arange(20)[None, :] >= lengths[1, rows][:, None])
    assert behind.any()
    assert (np.asarray(grads)[behind] == 0).all()


def test_padding_costs_next_to_nothing_on_disk(tmp_path):
    sizes = {}
    for most in (20, 400):
        heard(tmp_path / str(most), Positions(of=Embedding(dim=8), most=most))
        files = (tmp_path / str(most) / "teacher_embedding" / "c").rglob("*")
        sizes[most] = sum(path.stat().st_size for path in files if path.is_file())
    kept = int(speech(20)[1].sum()) * 8 * 2
    assert kept * 0.8 < sizes[20] < kept * 1.02
    # 380 more positions of 16 bytes are 3.6 MB in memory, and of this less than one part in 200.
    assert sizes[400] - sizes[20] < VIEWS * len(FRAMES) * 380 * 8 * 2 / 200


# --- as data --------------------------------------------------------------------------------------


def test_a_signal_is_described_in_full():
    assert describe(Positions(of=TopK(classes=9, k=2, temperatures=(1.0, 4.0)), most=7)) == {
        "name": "Positions",
        "of": {"name": "TopK", "classes": 9, "k": 2, "temperatures": (1.0, 4.0),
               "dtype": "float16"},
        "most": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    "signal", [*SIGNALS, Apart(of=SIGNALS[1], teachers=2), Positions(of=SIGNALS[1], most=3)],
    ids=repr,
)  # fmt: skip
def test_each_field_of_a_signal_is_in_its_description(signal):
    for field in dataclasses.fields(signal):
        others = {"dtype": "float64", "temperatures": (3.0,), "of": Logits(classes=3)}
        other = {**others, "hidden": True}.get(field.name, 99)
        changed = describe(dataclasses.replace(signal, **{field.name: other}))
        assert json.dumps(changed) != json.dumps(describe(signal))


@pytest.mark.parametrize(("signal", "said"), [
    (TopK(classes=9, k=0), "k: 0 is not in 1 .. 9"),
    (TopK(classes=9, k=10), "k: 10 is not in 1 .. 9"),
    (TopK(classes=9, k=2, temperatures=()), "temperatures"),
    (TopK(classes=9, k=2, temperatures=(1.0, 0.0)), "temperatures"),
    (Apart(of=TopK(classes=9, k=10), teachers=2), "k: 10"),
    (Positions(of=TopK(classes=9, k=10), most=2), "k: 10"),
])  # fmt: skip
def test_what_cannot_be_kept_is_refused(signal, said):
    with pytest.raises(BadInput, match=said) as error:
        check(signal)
    assert "\n" not in str(error.value)


@each_signal
def test_what_can_be_kept_is_not_refused(signal):
    check(signal)
    check(Apart(of=signal, teachers=2))
    check(Positions(of=signal, most=3))
