"""Where a step runs: one device, several under `pmap`, or several under a mesh.

Only this module knows. The other parts build their models and losses with `Parallel.axis_name` and
call what `compile` returns; all three give the same numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from kdjax.models import with_fast_convolutions
from kdjax.types import BadInput, PyTree

AXIS = "data"

BRIEF = 2**24
"""A training is brief that is shown fewer numbers than this, all steps together.

XLA:CPU fuses operations by newer or by older code. With the older code a train step is compiled in a
quarter less time, and a step of narrow maps takes up to a third longer: what is shown this little is done
before that counts.
"""

_MEASURED_JAXLIB = "0.10."


class Parallel(NamedTuple):
    """One way of running steps.

    Attributes:
      axis_name: mapped axis that a step sees, None where it sees the global batch.
      devices: how many share a batch, over all processes.
      compile: `(run_steps, brief) -> compiled`, see `make_run_steps`; the state is donated. What is
        run only briefly is compiled soon, see `BRIEF`.
      feed: host arrays [steps, rows of this process, ...] -> what the compiled function takes.
      replicate: a tree that every device holds whole.
      spread: `(f, tree) -> (rows -> f(tree, rows))`, compiled, for an `f` that treats each row of its
        arrays by itself: the devices of this process share the rows evenly.
      fast: what it compiles is run with `kdjax.models.with_fast_convolutions`.
    """

    axis_name: str | None
    devices: int
    compile: Callable[..., Callable[..., Any]]
    feed: Callable[[PyTree], PyTree]
    replicate: Callable[[PyTree], PyTree]
    spread: Callable[[Callable[..., PyTree], PyTree], Callable[[PyTree], PyTree]]
    fast: bool = False

    def shared(self, batch: int) -> int:
        """The least number of rows, `batch` or more, that the devices of this process share evenly."""
        here = self.devices // jax.process_count()
        return -(-batch // here) * here


def single() -> Parallel:
    """`jax.jit` on the first device."""
    device = jax.local_devices()[0]
    return Parallel(
        axis_name=None,
        devices=1,
        compile=lambda run_steps, brief=False: jax.jit(
            run_steps, donate_argnums=0, compiler_options=_soon(brief)
        ),
        feed=lambda tree: jax.device_put(tree, device),
        replicate=lambda tree: jax.device_put(tree, device),
        spread=lambda f, tree: _spread(f, tree, [device]),
    )


def mapped() -> Parallel:
    """`jax.pmap` over every device of every process: the default for several."""
    local, mesh = jax.local_device_count(), _mesh()
    replicated = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh.local_mesh, PartitionSpec(None, AXIS))

    def split(x):
        shares = x.reshape(x.shape[0], local, x.shape[1] // local, *x.shape[2:])
        return jax.device_put(shares, rows)

    def of_all_processes(x):
        parts = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, replicated, parts)

    def compile(run_steps, brief=False):  # `pmap` takes no options
        # Metrics and state are equal on all devices: `None` keeps one copy a device, without a
        # leading axis, so that what follows need not know of the devices.
        compiled = jax.pmap(
            run_steps,
            axis_name=AXIS,
            in_axes=(None, None, 1, None),
            out_axes=(None, None),
            donate_argnums=0,
        )
        if jax.process_count() == 1:
            return compiled

        def run_steps_of_all(state, resident, feed, key):
            # What `pmap` gives belongs to this process alone, and no checkpoint takes that: the
            # same buffers, seen as parts of arrays that all processes hold.
            state, metrics = compiled(state, resident, feed, key)
            return jax.tree.map(of_all_processes, state), metrics

        return run_steps_of_all

    return Parallel(
        axis_name=AXIS,
        devices=jax.device_count(),
        compile=compile,
        feed=lambda tree: jax.tree.map(split, tree),
        replicate=lambda tree: _replicate(tree, replicated),
        spread=lambda f, tree: _spread(f, tree, jax.local_devices()),
    )


def meshed() -> Parallel:
    """`jax.jit` over a mesh: the global view, the compiler adds the collectives."""
    mesh = _mesh()
    replicated = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def compile(run_steps, brief=False):
        return jax.jit(
            run_steps,
            compiler_options=_soon(brief),
            in_shardings=(replicated, replicated, rows, replicated),
            out_shardings=(replicated, replicated),
            donate_argnums=0,
        )

    return Parallel(
        axis_name=None,
        devices=jax.device_count(),
        compile=compile,
        feed=lambda tree: jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(rows, x), tree
        ),
        replicate=lambda tree: _replicate(tree, replicated),
        spread=lambda f, tree: _spread(f, tree, jax.local_devices()),
    )


def _soon(brief: bool) -> dict[str, bool] | None:
    """Options of XLA with which a program is compiled soon, where they were measured."""
    measured = jaxlib.version.__version__.startswith(_MEASURED_JAXLIB)
    if not (brief and measured and jax.default_backend() == "cpu"):
        return None
    return {"xla_cpu_use_fusion_emitters": False}


def _mesh() -> Mesh:
    """All devices, those of a process together, which a pod does not always list so.

    That is how `rows_of_process` shares a batch, and how `pmap` has them.
    """
    processes = range(jax.process_count())
    devices = [device for i in processes for device in jax.local_devices(process_index=i)]
    return Mesh(np.asarray(devices), (AXIS,))


def _replicate(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Every process has the same values; each device gets a whole copy of them."""

    def put(x):
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                put(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree)


def _spread(f: Callable[..., PyTree], tree: PyTree, devices: Sequence[Any]):
    mesh = Mesh(np.asarray(devices), (AXIS,))
    replicated, rows = (
        NamedSharding(mesh, PartitionSpec()),
        NamedSharding(mesh, PartitionSpec(AXIS)),
    )
    compiled = jax.jit(f, in_shardings=(replicated, rows), out_shardings=rows)
    tree = jax.device_put(tree, replicated)
    # Placed by hand: of several processes none may give NumPy arrays to be shared out.
    return lambda arrays: compiled(tree, jax.device_put(arrays, rows))


def of_all_processes(number: int) -> int | Array:
    """The largest of the numbers that the processes give, each at the same place of its program.

    Of several, a device array that is not waited for here.
    """
    if jax.process_count() == 1:
        return number
    mesh = _mesh()
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    one = np.full(1, number, np.int32)
    given = jax.make_array_from_callback((mesh.size,), rows, lambda index: one)
    return _largest(mesh)(given)


@functools.cache
def _largest(mesh: Mesh):
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))


def choose(name: str, *, convolutions: str = "auto") -> Parallel:
    """`single`, `pmap`, `mesh`; `auto` is `single` on one device and `pmap` on several.

    Args:
      name: one of these.
      convolutions: `auto` runs what is compiled with `kdjax.models.with_fast_convolutions` where the
        devices are CPUs; `xla` leaves it as it is written.

    Raises:
      BadInput: a name is none of these, or `single` is asked for in several processes.
    """
    if convolutions not in ("auto", "xla"):
        raise BadInput("convolutions", f"{convolutions!r} is neither auto nor xla")
    parallel = _named(name)
    if convolutions == "xla" or jax.default_backend() != "cpu":
        return parallel
    return parallel._replace(
        compile=lambda run_steps, brief=False: parallel.compile(
            with_fast_convolutions(run_steps), brief
        ),
        spread=lambda f, tree: parallel.spread(with_fast_convolutions(f), tree),
        fast=True,
    )


def _named(name: str) -> Parallel:
    match name:
        case "auto":
            return single() if jax.device_count() == 1 else mapped()
        case "single":
            if jax.process_count() > 1:
                raise BadInput(
                    "parallel",
                    f"single would train {jax.process_count()} models, one a process",
                    "take pmap or mesh",
                )
            return single()
        case "pmap":
            return mapped()
        case "mesh":
            return meshed()
    raise BadInput("parallel", f"{name!r} is not one of auto, single, pmap, mesh")


def check_batch(batch: int, parallel: Parallel, *, accumulate: int, field: str) -> None:
    """Raises `BadInput` where a global batch cannot be shared evenly."""
    parts = parallel.devices * accumulate
    if batch % parts:
        raise BadInput(
            field,
            f"{batch} examples cannot be shared by {parallel.devices} devices x {accumulate} "
            "accumulated parts",
            f"take a multiple of {parts}",
        )


def rows_of_process(batch: int) -> slice:
    """The rows of a global batch that this process reads."""
    share = batch // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)
