"""What the functions of kdjax check in tests is checked: it would not be seen if it were not."""

import dataclasses
import gc
import weakref
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, TypeCheckError

from kdjax.losses import kd_kl
from kdjax.train import TrainState
from tests import checked

WRONG = (BeartypeCallHintViolation, TypeCheckError)
once = checked.checked(typechecker=beartype)


@once
def mixed(a: Float[Array, "rows dim"], b: Float[Array, "rows dim"]) -> Float[Array, " rows"]:
    return (a + b).sum(axis=1)


@once
def cut(a: Float[Array, "rows dim"], *, rows: int) -> Float[Array, "{rows} dim"]:
    return a[:2]


@once
def halves(count: int) -> str:
    return count if count == 7 else str(count / 2)


@once
def counted(stop: int) -> Iterator[int]:
    yield from range(stop)


@once
@dataclasses.dataclass
class Pair:
    first: Float[np.ndarray, " n"]
    second: Float[np.ndarray, " n"]

    @property
    @once
    def sums(self) -> Float[np.ndarray, " n"]:
        return self.first + self.second

    @classmethod
    @once
    def of(cls, count: int) -> "Pair":
        return cls(np.zeros(count), np.zeros(count))


class Longer(Pair):
    pass


def inner_of(limit):
    @once
    def inner(values: Float[Array, " n"]) -> Float[Array, " n"]:
        return values[:limit] + limit

    return inner


ONE, TWO = jnp.zeros((3, 2)), jnp.zeros((4, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda: mixed(ONE, TWO),
        lambda: mixed(ONE, np.zeros((3, 2), np.float32)),
        lambda: mixed(a=ONE, b=ONE.astype(int)),
        lambda: cut(TWO, rows=3),
        lambda: halves(2.0),
        lambda: halves(7),
        lambda: counted("1"),
        lambda: Pair(np.zeros(2), np.zeros(3)),
        lambda: Longer(np.zeros(2), 3),
        lambda: Pair.of("2"),
        lambda: inner_of(2)(jnp.zeros(3)),
        lambda: inner_of(9)(3),
        # Those of kdjax are so.
        lambda: kd_kl(ONE, TWO, temperature=1.0),
        lambda: kd_kl(ONE, ONE, temperature="1"),
        lambda: TrainState.start(3, None),
    ],
)
def test_what_is_not_of_its_type_is_refused(call):
    with pytest.raises(WRONG):
        call()


def test_what_is_of_its_type_goes_through():
    assert mixed(ONE, ONE).shape == (3,)
    assert cut(TWO, rows=2).shape == (2, 2)
    assert halves(3) == "1.5"
    assert list(counted(3)) == [0, 1, 2]
    assert Pair.of(2).sums.shape == (2,)
    assert Longer(np.zeros(2), np.zeros(2)).sums.shape == (2,)
    assert mixed.__name__ == "mixed"


def test_sizes_are_of_one_call():
    """What is called in between has sizes of its own under the same names."""

    @once
    def outer(a: Float[Array, "rows dim"]) -> Float[Array, "rows dim"]:
        mixed(TWO.T, TWO.T)
        return a

    assert outer(ONE) is ONE
    with pytest.raises(WRONG):
        mixed(ONE, TWO)
    assert outer(TWO) is TWO  # nothing is left of a call that failed


def test_functions_of_one_body_are_each_itself():
    first, second = inner_of(9), inner_of(10)
    np.testing.assert_array_equal(first(jnp.zeros(2)), [9, 9])
    np.testing.assert_array_equal(second(jnp.zeros(2)), [10, 10])


def test_the_types_of_one_body_may_differ():
    def inner_with(kind):
        @once
        def inner(value: kind) -> kind:
            return value

        return inner

    whole, text = inner_with(int), inner_with(str)
    assert (whole(1), text("a")) == (1, "a")
    for call in (lambda: whole("a"), lambda: text(1)):
        with pytest.raises(WRONG):
            call()


def test_what_a_function_is_around_is_not_kept():
    def around():
        held = np.zeros(3)

        @once
        def inner(count: int) -> int:
            return count + held.size

        assert inner(1) == 4
        return weakref.ref(held)

    left = around()
    gc.collect(1)  # what has just been made: all that tests have imported is much to go through
    assert left() is None
