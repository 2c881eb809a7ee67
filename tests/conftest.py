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
from jax._src import compiler

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
_HARDLY = "jax_disable_most_optimizations"
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


# What a test compiles it runs once or few times, so the compiler need not try hard: without LLVM's
# optimizations and XLA's newer code for fusions a train step is compiled in a quarter of the time.
_OLD_FUSIONS = {"xla_cpu_use_fusion_emitters": False}
_options = compiler.get_compile_options


def _compile_options(*args, env_options_overrides=None, **kwargs):
    """As jax has them, with what a program is given by `_hardly_optimized` besides."""
    if jax.config.values[_HARDLY]:
        env_options_overrides = {**_OLD_FUSIONS, **(env_options_overrides or {})}
    return _options(*args, env_options_overrides=env_options_overrides, **kwargs)


compiler.get_compile_options = _compile_options  # no public name reaches every program


@pytest.fixture(scope="module", autouse=True)
def _hardly_optimized(request):
    """Of all modules but those marked `optimized`: they see what users run, compiled afresh."""
    optimized = request.node.get_closest_marker("optimized") is not None
    before = jax.config.values[_HARDLY]
    if before == optimized:
        jax.clear_caches()
    jax.config.update(_HARDLY, not optimized)
