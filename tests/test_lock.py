"""One holder at a time; one that is gone is followed at once, one of another machine after a while."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kdjax import lock
from kdjax.types import StorageFailed

HOLD = """
import sys, time
from kdjax import lock
lock.take(sys.argv[1])
print(1, flush=True)
time.sleep(99)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / ".thing.lock"


@pytest.fixture
def other(path):
    """Another process that holds it, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def written(path, **changes):
    """A lock of this process as another machine, or another moment, would have left it."""
    holder = dataclasses.replace(lock.Holder.this(), **changes)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    return holder


def test_a_lock_is_given_back(path):
    first = lock.take(path)
    assert isinstance(first, lock.Lock)
    second = lock.take(path)
    assert isinstance(second, lock.Holder)
    assert second.pid == os.getpid()
    first.check()
    first.close()
    assert lock.holder(path) is None
    assert not list(path.parent.iterdir())
    again = lock.take(path)
    assert isinstance(again, lock.Lock)
    assert again.before is None
    again.close()


def test_one_that_lives_is_named_and_one_that_was_killed_is_followed_at_once(path, other):
    found = lock.take(path)
    assert isinstance(found, lock.Holder)
    assert found == lock.holder(path)
    assert found.pid == other.pid
    assert str(found).startswith(f"process {other.pid} on ")
    other.kill()
    deadline = time.monotonic() + 10
    while lock.holder(path) is not None:  # before anybody has asked for its exit status
        assert time.monotonic() < deadline
    mine = lock.take(path)
    assert isinstance(mine, lock.Lock)
    assert mine.before == found
    mine.close()


@pytest.mark.parametrize(
    ("changes", "age", "lives"),
    [
        ({}, 1e6, True),  # a process of this machine that stood still
        ({"begun": 1}, 0, False),  # its number has gone to another one
        ({"pid": 2**22 + 1}, 0, False),  # more than there can be
        ({"machine": "before it was started anew"}, 0, True),
        ({"host": "elsewhere"}, 0, True),
        ({"host": "elsewhere"}, lock.STALE_SECONDS - 20, True),
        ({"host": "elsewhere"}, lock.STALE_SECONDS + 20, False),
        ({"machine": "another start"}, lock.STALE_SECONDS + 20, False),
    ],
)
def test_who_lives(path, changes, age, lives):
    holder = written(path, **changes)
    os.utime(path, (time.time() - age,) * 2)
    assert (lock.holder(path) == holder) == lives
    lock.clear(path)
    assert path.exists() == lives
    written(path, **changes)
    os.utime(path, (time.time() - age,) * 2)
    found = lock.take(path)
    assert isinstance(found, lock.Holder) == lives
    if isinstance(found, lock.Lock):
        found.close()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"pid": 3}', b"[]"])
def test_what_cannot_be_understood_is_somebodys_for_a_while(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert str(lock.take(path)) == "someone whom the lock does not name"
    os.utime(path, (time.time() - lock.STALE_SECONDS - 20,) * 2)
    mine = lock.take(path)
    assert isinstance(mine, lock.Lock)
    mine.close()


def test_of_many_who_follow_one_has_it(path):
    """All find the same one gone at the same moment; each time exactly one holds it."""
    for _ in range(20):
        written(path, begun=1)
        start = threading.Barrier(8)

        def follow(start=start):
            start.wait()
            return lock.take(path)

        with ThreadPoolExecutor(8) as pool:
            found = [f.result() for f in [pool.submit(follow) for _ in range(8)]]
        (mine,) = (f for f in found if isinstance(f, lock.Lock))
        mine.check()
        mine.close()


def test_one_after_the_other(path):
    """What is guarded is never done by two at once, and everyone has a turn."""
    inside, most = [], []

    def work(number):
        with lock.held(path, waiting=lambda holder: None):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert most == [1, 1, 1]
    assert not list(path.parent.iterdir())


def test_a_lock_is_given_back_at_an_exception_and_missed_when_it_is_gone(path):
    with pytest.raises(KeyError), lock.held(path, waiting=print):
        raise KeyError
    assert lock.holder(path) is None
    with lock.held(path, waiting=print) as held:
        path.unlink()
        with pytest.raises(StorageFailed, match=r"\.thing\.lock: this lock was taken away"):
            held.check()
        other = written(path, host="elsewhere")
        with pytest.raises(StorageFailed, match=r"\.thing\.lock: this lock was taken over"):
            held.check()
    assert lock.holder(path) == other  # not deleted by who does not hold it


def test_a_sign_of_life(path, monkeypatch):
    monkeypatch.setattr(lock, "SIGN_SECONDS", 0.01)
    with lock.held(path, waiting=print):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < time.time() - 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_directory_in_its_place(path):
    path.mkdir(parents=True)
    with pytest.raises(StorageFailed, match="a directory is where a file must be; move it away"):
        lock.take(path)
