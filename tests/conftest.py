"""Eight fake CPU devices, checked shapes, strict ranks: set before anything of kdjax is imported."""

import gc
import hashlib
import os
import pathlib
import platform
import sys
import threading

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jaxlib.version
import jaxtyping
import pytest
from hypothesis import settings
from jax._src import compiler
from jax._src.interpreters import mlir

from tests import checked, parameter_shapes
from tests.compiled import OPTIONS

# A hundred processes that tests start import kdjax: where none may keep its bytecode, to compile it is
# a quarter of that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
checked.install()
parameter_shapes.install()
jaxtyping.install_import_hook("kdjax", "beartype.beartype")

# The same examples in every run; `--hypothesis-profile=default` draws others.
settings.register_profile("same", derandomize=True, deadline=None)  # no test is timed
settings.load_profile("same")

# Half of the time goes into XLA, and tests compile the same programs again and again: in this process,
# in that of another worker, in one that a test starts, in the run after this one. Who compiles one
# leaves it here for all of them, which inherit the environment. A folder is for one version of jax on one
# kind of processor. jax writes such a file in place: who meets one that is not whole warns of it and
# compiles.
_COMPILED, _LEAST_SECONDS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
_TESTS = pathlib.Path(__file__).parent
_HARDLY = "jax_disable_most_optimizations"
_LEVEL = "xla_backend_optimization_level"
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
    os.environ[_LEAST_SECONDS] = "0"  # to read the smallest takes a fifth of compiling it
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


# Where most of the time goes: what is left in the end is small, so that no worker waits for long.
_FIRST = (
    *("stages", "quant", "views", "export", "train", "data"),
    *("test_storage.py", "test_config_fuzz.py", "test_notebook.py"),
)


def pytest_collection_modifyitems(items):
    """With `--dist loadfile` a file is one worker's: what its tests share is made once.

    Those with whole runs go first. Not `--dist loadgroup`: pytest 9.2 does not show pytest-xdist 3.8's
    groups, and each test goes to whichever worker is free.
    """

    def order(item):
        folder = item.path.relative_to(_TESTS).parts[0]
        whole = item.get_closest_marker("slow") is not None
        return not whole, _FIRST.index(folder) if folder in _FIRST else len(_FIRST)

    items.sort(key=order)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    """No garbage is looked for while modules are imported: nearly all that they make stays."""
    gc.disable()


def pytest_collection_finish(session):
    """What was imported is never garbage, and tracing makes many small things that live on.

    To look through all of them after each few hundred takes a twentieth of the time.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)
    gc.enable()


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


_options = compiler.get_compile_options


def _compile_options(*args, env_options_overrides=None, **kwargs):
    """As jax has them, and what goes with little optimization besides."""
    if jax.config.values[_HARDLY]:
        # A level that a program is given by kdjax is below that of all others: here it would be above.
        given = {n: v for n, v in (env_options_overrides or {}).items() if n != _LEVEL}
        env_options_overrides = {**OPTIONS, **given}
    return _options(*args, env_options_overrides=env_options_overrides, **kwargs)


compiler.get_compile_options = _compile_options  # no public name reaches every program


_make_context = mlir.make_ir_context
_contexts = threading.local()
_PROGRAMS_OF_A_CONTEXT = 64


def _context():
    """What MLIR has a program in: all dialects are loaded into a new one, which takes 5 ms.

    Most programs of tests are small, and are lowered in less. What a program has in one stays there
    as long as it does, so it is left now and then.
    """
    if getattr(_contexts, "left", 0) == 0:
        _contexts.context, _contexts.left = _make_context(), _PROGRAMS_OF_A_CONTEXT
    _contexts.left -= 1
    return _contexts.context


mlir.make_ir_context = _context


@pytest.fixture(scope="module", autouse=True)
def _hardly_optimized(request):
    """All modules but those marked `optimized`, which see what users run, compiled afresh."""
    optimized = request.node.get_closest_marker("optimized") is not None
    before = jax.config.values[_HARDLY]
    if before == optimized:
        jax.clear_caches()
    jax.config.update(_HARDLY, not optimized)


@pytest.fixture(scope="module", autouse=True)
def _hardly_timed(request):
    """Rows have the time of a few calls, and no memory of a file, but where that is what is tested."""
    if request.node.get_closest_marker("timed") is not None:
        yield
        return
    from kdjax.measuring import measure  # after what has kdjax checked as it is imported

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "seconds_of", lambda context: 0.0)
        yield


_CONFIGS = frozenset(path.stem for path in (_TESTS.parent / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def _no_config_stays_imported():
    """No test finds a config's module because one before it has imported that."""
    yield
    imported = _CONFIGS & sys.modules.keys()
    for name in imported:
        del sys.modules[name]
    assert not imported
