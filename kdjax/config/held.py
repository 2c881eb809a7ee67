"""What the user's functions give, held against what is expected of them, as they are traced."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from kdjax import fingerprint, train
from kdjax.config.own import shown
from kdjax.types import BadInput

_MEND = (
    "a term gives losses [batch], or (losses, rows), or of positions (losses, mask), or a scalar, "
    "of floats"
)


def term(function: Callable[..., Any], *, field: str, said: str) -> train.Term:
    """The user's function as a term of `kdjax.train.weigh`.

    Args:
      function: `(outputs, batch) -> losses`, see there.
      field: that has it, for messages.
      said: what it is called there.

    Raises:
      BadInput: as it is traced: it gives no losses of the examples of the batch, or is not pure.
    """

    def held(outputs, batch):
        found = function(outputs, batch)
        if not _are_losses(found, outputs, batch):
            raise BadInput(field, f"{said} gave {shown(found)}", _MEND)
        check_pure(function, outputs, batch, field=field, said=said)
        return found

    return held


def features(function: Callable[..., Any], student: Any, teacher: Any, *, said: str) -> Any:
    """What the user's comparison of features gives, of the field `function`.

    Raises:
      BadInput: it gives no losses of the examples of the batch, or is not pure.
    """
    found = function(student, teacher)
    if isinstance(found, tuple) or not _are_losses(found, student, teacher):
        wanted = "a comparison of features gives losses [batch], or a scalar, of floats"
        raise BadInput("function", f"{said} gave {shown(found)}", wanted)
    check_pure(function, student, teacher, field="function", said=said)
    return found


def _are_losses(found: Any, outputs: Any, batch: Any) -> bool:
    """Whether they are floats, one for each example, alone or with weights, or a scalar."""
    both = found if isinstance(found, tuple) else (found,)
    shapes = {getattr(x, "shape", (0, 0, 0)) for x in both}
    if not 1 <= len(both) <= 2 or len(shapes) > 1:
        return False
    (shape,) = shapes
    if not jnp.issubdtype(getattr(both[0], "dtype", np.void), jnp.floating):
        return False
    if len(shape) not in ({1, 2} if len(both) == 2 else {0, 1}):
        return False
    given = {x.shape[0] for x in jax.tree.leaves(batch or outputs) if jnp.ndim(x)}
    if not shape or not given:
        return True
    # Of mixed examples there may be losses of both labels, one behind the other.
    return any(n and shape[0] % n == 0 for n in given) if len(both) == 2 else shape[0] in given


def check_pure(function: Callable[..., Any], *args: Any, field: str, said: str) -> None:
    """Traces a function twice: one that draws from NumPy, or counts its calls, is another each time.

    What it does when it is compiled stays so until the process ends, and is another in the next one: a
    run that goes on would train on something else, and a view would not be the one that a teacher saw.

    Raises:
      BadInput: it differs.
    """
    # A function that jax has traced is not traced again: each time it is another.
    one, other = (_marked(jax.make_jaxpr(lambda *a: function(*a))(*args)) for _ in range(2))
    if one != other:
        raise BadInput(
            field,
            f"{said} is not pure: called twice with the same, it does two things",
            "let it depend on its arguments alone, and draw by a jax key that is one of them",
        )


def _marked(closed: Any) -> tuple[str, list[str]]:
    """A jaxpr as a text, and its constants."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr)), [*_constants(closed)]


def _constants(closed: Any) -> Iterator[str]:
    for const in closed.consts:
        if isinstance(const, jax.core.Tracer):
            yield f"tracer {id(const)}"
        elif jnp.issubdtype(getattr(const, "dtype", np.void), jax.dtypes.extended):
            yield fingerprint.of_arrays({"key": np.asarray(jax.random.key_data(const))})
        else:
            yield fingerprint.of_arrays({"const": np.asarray(const)})
    yield from _inner(closed.jaxpr)


def _inner(jaxpr: Any) -> Iterator[str]:
    """The constants of the jaxprs inside of one."""
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, core.ClosedJaxpr)
        ):
            if isinstance(value, core.ClosedJaxpr):
                yield from _constants(value)
            elif isinstance(value, core.Jaxpr):
                yield from _inner(value)
