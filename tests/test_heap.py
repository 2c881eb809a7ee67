"""What is freed is kept, in huge pages, and given back between stages; a switch leaves all as it is."""

import ctypes
import os
import subprocess
import sys

import pytest

from kdjax import heap

_MEASURED = """
import ctypes, resource
from kdjax import heap

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 2**28

def used():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(SIZE)
    libc.memset(piece, 1, SIZE)
    libc.free(piece)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmRSS"].split()[0]) * 1024

kept = heap.keep()
first, second, there = used(), used(), resident()
heap.release()
print(kept, heap.is_kept(), first, second, there // SIZE, resident() // SIZE, used())
"""

_glibc = pytest.mark.skipif(heap._glibc() is None, reason="is for glibc and few cores")


def _measured(**environment: str) -> list[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own.pop("GLIBC_TUNABLES", None)
    own |= {"JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED], env=own, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@_glibc
def test_what_is_freed_is_there_for_the_next_and_is_given_back_when_told():
    kept, is_kept, first, second, there, left, after = _measured()
    assert (kept, is_kept) == ("True", "True")
    assert int(second) == 0  # of 65,536 small pages
    assert (int(there), int(left)) == (1, 0)
    assert int(first) > 0
    assert int(after) > 0


@_glibc
@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"},
        {"JAX_PLATFORMS": "cuda,cpu"},
    ],
    ids=str,
)
def test_it_is_off_where_the_environment_says_so(environment):
    kept, is_kept, first, second, *_ = _measured(**environment)
    assert (kept, is_kept) == ("False", "False")
    assert int(second) >= int(first) // 2  # taken from the kernel anew


def test_an_accelerator_of_this_machine_leaves_it_off(monkeypatch):
    monkeypatch.setattr(heap.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    assert not heap.keep({})
    assert heap._is_wanted({"JAX_PLATFORMS": "cpu"})


def test_nothing_that_starts_threads_is_imported_before_the_command_line_asks_for_it():
    code = "import sys; import kdjax.main; print({'numpy', 'jax'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_nothing_is_reserved_where_what_is_asked_for_counts(monkeypatch, tmp_path):
    asked = []
    libc = ctypes.CDLL(None)
    libc.malloc = lambda size: asked.append(size)  # it may not have so much
    monkeypatch.setattr(heap, "_OVERCOMMIT", tmp_path / "overcommit_memory")
    for mode, times in (("0", 1), ("2", 1), ("1", 2)):
        (tmp_path / "overcommit_memory").write_text(f"{mode}\n")
        heap._reserve(libc)
        assert len(asked) == times
