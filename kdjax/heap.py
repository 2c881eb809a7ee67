"""Memory that a step gave back stays with the process, in huge pages, and the next step has it.

XLA:CPU asks for the temporary arrays of a step anew in every step, often a gigabyte, and glibc gives
pieces of that size back to the kernel when they are freed. So the kernel clears all of it in every step,
4 KiB at a time, which took from a twentieth to a third of steps: `kdjax/train/README.md` has the figures.

What is here changes no result, only where memory comes from. It is for Linux with glibc and for processes
that compute on the CPU, and it must come before jax has started threads of its own.
"""

import contextlib
import ctypes
import glob
import os
import pathlib
import sys
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Of `mallopt`, from glibc's malloc.h."""

_MADV_HUGEPAGE = 14
_HUGE = 2**21
"""Bytes of a huge page of x86; with larger ones the kernel takes the part that it can."""

_MOST_CORES = 8
"""With one arena threads wait for each other's small pieces. With more cores that was not measured."""

_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*")

_OVERCOMMIT = pathlib.Path("/proc/sys/vm/overcommit_memory")
_COUNTS_ALL = "2"
"""Of it: memory that is asked for counts, used or not."""

_kept_by: ctypes.CDLL | None = None


def keep(environment: Mapping[str, str] = os.environ) -> bool:
    """From now on, what is freed is kept for what is asked for next.

    It leaves everything as it is on another system or C library, with more than eight cores, where an
    accelerator will compute (one is there, and `JAX_PLATFORMS` is not `cpu`), and where the environment
    has settings of malloc: `GLIBC_TUNABLES` or any `MALLOC_...`. With `MALLOC_TRIM_THRESHOLD_=131072`,
    which is glibc's own, it is off.

    Returns:
      Whether it does.
    """
    global _kept_by
    if not _is_wanted(environment) or (libc := _glibc()) is None:
        return False
    # One arena: others take pieces above 64 MiB from the kernel each time, whatever is set.
    one, none, never = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    if not all(libc.mallopt(*setting) for setting in (one, none, never)):
        return False
    _reserve(libc)
    _kept_by = libc
    return True


def is_kept() -> bool:
    """Whether `keep` has been called and could do it."""
    return _kept_by is not None


def release() -> None:
    """Gives back to the kernel what is free now; nothing where nothing is kept."""
    if _kept_by is not None:
        _kept_by.malloc_trim(0)
        _reserve(_kept_by)


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in environment):
        return False
    if platforms := environment.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not any(glob.glob(pattern) for pattern in _ACCELERATORS)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) > _MOST_CORES:
        return None
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt")):
        return None
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    return libc


def _reserve(libc: ctypes.CDLL) -> None:
    """Asks for huge pages in a heap as large as half of the machine's memory; uses none of it."""
    with contextlib.suppress(OSError):
        if _OVERCOMMIT.read_text().strip() == _COUNTS_ALL:
            return
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    start = libc.malloc(size)
    if start:  # not where the process may not ask for so much: small pages then
        first = -(-start // _HUGE) * _HUGE
        libc.madvise(first, (start + size - first) // _HUGE * _HUGE, _MADV_HUGEPAGE)
        libc.free(start)
