"""Eight fake CPU devices, checked shapes, strict ranks: set before anything of kdjax is imported."""

import hashlib
import os
import pathlib
import platform

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxlib.version
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("kdjax", "beartype.beartype")

# Half of the time goes into XLA, and tests compile the same programs again and again: in this process,
# in that of another worker, in one that a test starts, in the run after this one. Who compiles one
# leaves it here for all of them, which inherit the environment. A folder is for one version of jax on one
# kind of processor. jax writes such a file in place: who meets one that is not whole warns of it and
# compiles.
_COMPILED, _LEAST_SECONDS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
_MOST_BYTES = 4 * 2**30


def _kept() -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cpus = pathlib.Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else [platform.processor()]
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    kind = hashlib.sha256("".join(about or lines).encode()).hexdigest()[:12]
    name = f"jax{jax.__version__}-{jaxlib.version.__version__}-{platform.machine()}-{kind}"
    return pathlib.Path(home).expanduser() / "kdjax-tests" / name


_own = _COMPILED not in os.environ
if _own:
    os.environ[_COMPILED] = str(_kept())
    os.environ[_LEAST_SECONDS] = "0.1"
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache"
    jax.config.update(_COMPILED.lower(), os.environ[_COMPILED])
    jax.config.update(_LEAST_SECONDS.lower(), float(os.environ[_LEAST_SECONDS]))


@pytest.fixture
def compiled():
    """How long each program took that XLA has compiled, or read from where it is kept, in this test."""
    seconds: list[float] = []

    def note(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(note)


def pytest_collection_modifyitems(items):
    """Whole runs first: at the end one worker would wait for the other's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_unconfigure():
    """Where much has come together, what was compiled longest ago goes."""
    folder = pathlib.Path(os.environ[_COMPILED])
    if not _own or "PYTEST_XDIST_WORKER" in os.environ or not folder.is_dir():
        return
    found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir())
    left = sum(size for _, size, _ in found)
    for _, size, path in found:
        if left <= _MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        left -= size


@pytest.fixture(scope="module")
def little_optimization():
    """For tests of small functions that run once or few times: the compiler need not try hard.

    Not for those that compare bytes or timings, which must see what users run.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
