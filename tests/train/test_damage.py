"""What becomes of a run whose newest checkpoint is no longer what was saved."""

import errno
import os
import resource
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from kdjax.train import Checkpoints, TrainState
from kdjax.types import BadInput

FLIPS = 120


def state(step):
    """Of a step, told from any other in every leaf."""
    random = np.random.default_rng(step)
    return TrainState(
        step=jnp.int32(step),
        params={"dense": {"kernel": jnp.asarray(random.normal(size=(7, 5)), jnp.float32)}},
        opt_state=(jnp.asarray(random.normal(size=4), jnp.bfloat16), None),
        model_state={"kept": jnp.asarray(random.integers(0, 2, 9), bool)},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder)
    for step in (10, 20):
        checkpoints.save(step, state(step), record={"count": step})
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def found(folder, capsys):
    """`(step, what was said)`, where the arrays are those of that step to the bit."""
    checkpoints = Checkpoints(folder)
    restored = checkpoints.latest(state(0))
    checkpoints.close()
    step = int(restored.step)
    for leaf, wanted in zip(*map(jax.tree.leaves, (restored, state(step))), strict=True):
        assert leaf.dtype == wanted.dtype
        np.testing.assert_array_equal(leaf, wanted)
    assert dict(checkpoints.record) == ({"count": step} if step else {})
    return step, capsys.readouterr().err


def check_named(folder, capsys, *, damaged=20, before=10):
    """One line names the damaged one, and the one before is used."""
    step, said = found(folder, capsys)
    assert step == before
    (line,) = said.splitlines()
    assert line.startswith(str(folder / str(damaged)))
    assert f"going on from the one of step {before}" in line


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def flips(saved, count):
    """Bits over all files of the newest, evenly among the files, then among their bits."""
    random = np.random.default_rng(0)
    there = [path.relative_to(saved) for path in files(saved / "20") if path.stat().st_size]
    for i in range(count):
        name = there[i % len(there)]
        yield name, int(random.integers(8 * (saved / name).stat().st_size))


def check_flips(saved, folder, capsys, count):
    for name, bit in flips(saved, count):
        flip(folder / name, bit)
        check_named(folder, capsys)
        flip(folder / name, bit)
    assert found(folder, capsys) == (20, "")


def test_a_flipped_bit_is_named(saved, folder, capsys):
    check_flips(saved, folder, capsys, 12)


@pytest.mark.thorough
def test_each_of_many_flipped_bits_is_named(saved, folder, capsys):
    check_flips(saved, folder, capsys, FLIPS)


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_truncated_file_is_named(saved, folder, capsys, left):
    for name in (path.relative_to(saved) for path in files(saved / "20")):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(left * len(whole))])
        check_named(folder, capsys)
        (folder / name).write_bytes(whole)


def test_a_file_that_is_gone_is_named(saved, folder, capsys):
    for name in (path.relative_to(saved) for path in files(saved / "20")):
        whole = (folder / name).read_bytes()
        (folder / name).unlink()
        check_named(folder, capsys)
        (folder / name).write_bytes(whole)


def test_an_empty_checkpoint_is_named(folder, capsys):
    shutil.rmtree(folder / "20")
    (folder / "20").mkdir()
    check_named(folder, capsys)


def test_with_none_whole_it_begins_at_the_start_and_says_so(folder, capsys):
    for step in (10, 20):
        (folder / f"{step}/record.json").write_text("{}")
    step, said = found(folder, capsys)
    assert step == 0
    first, second = said.splitlines()
    assert "going on from the one of step 10" in first
    assert "going on from the start" in second


def test_damage_of_an_older_one_does_not_matter(folder, capsys):
    shutil.rmtree(folder / "10")
    (folder / "10").mkdir()
    assert found(folder, capsys) == (20, "")


def test_what_is_damaged_stays_until_something_newer_is_whole(folder, capsys):
    (folder / "20/record.json").write_bytes(b"\xff")
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.latest(state(0)).step) == 10
    capsys.readouterr()
    for step, there in ((15, [10, 15, 20]), (20, [15, 20]), (25, [20, 25])):
        checkpoints.save(step, state(step), record={"count": step})
        checkpoints.wait()
        assert checkpoints.steps() == there
        if step > 15:
            assert found(folder, capsys) == (step, "")
        else:
            check_named(folder, capsys, before=15)
    checkpoints.close()


def test_whole_but_of_something_else_is_refused(folder):
    other = state(0).replace(params={"dense": {"kernel": jnp.zeros((7, 6))}})
    with pytest.raises(BadInput, match=r"20: this checkpoint does not fit .*kernel: found float32"):
        Checkpoints(folder).latest(other)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of TensorStore
def test_what_cannot_be_written_is_one_error_with_its_path_and_the_last_stays(folder, capsys):
    big = state(30).replace(
        model_state={"kept": jnp.asarray(np.random.default_rng(0).random(9999))}
    )
    checkpoints, (soft, hard) = Checkpoints(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        checkpoints.save(30, big)
        with pytest.raises(OSError, match="File too large") as raised:
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.filename == str(folder / "30")
    assert {path.name for path in folder.iterdir()} == {"10", "20"}
    assert found(folder, capsys) == (20, "")


def test_a_thread_that_writes_on_after_the_error_leaves_nothing_behind(folder, capsys, monkeypatch):
    """Orbax reports the first of several writes that fail, and TensorStore makes folders anew."""
    late: list[threading.Timer] = []

    def save_and_go_on(self, directory, **_):
        def write():
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "late").write_bytes(bytes(9))

        for seconds in (0, 0.05, 0.25):
            late.append(threading.Timer(seconds, write))
            late[-1].start()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp.Checkpointer, "save", save_and_go_on)
    checkpoints = Checkpoints(folder)
    checkpoints.save(30, state(30))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.close()
    assert not any(timer.is_alive() for timer in late)
    assert {path.name for path in folder.iterdir()} == {"10", "20"}
    assert found(folder, capsys) == (20, "")
