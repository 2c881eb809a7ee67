import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax.jaxprs import flatten, operations

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)


def _product(x, w):
    return jnp.tanh(x @ w)


@jax.custom_vjp
def _clipped(x):
    return 2 * x


_clipped.defvjp(lambda x: (2 * x, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))


def _nested(x, w):
    return jax.jit(lambda x: jax.jit(_product)(x, w) + jax.checkpoint(_product)(x, w))(x)


def _constant(x, w):
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    return jax.jit(lambda x: _product(x, w) + table)(x), jnp.float32(2.0), x


def _scanned(x, w):
    return lax.scan(lambda x, _: (_product(x, w), x.sum()), x, None, length=3)


def _chosen(x, w):
    return lax.cond(x.sum() > 0, _product, lambda x, w: x, x, w)


def _own_gradient(x, w):
    return jax.jit(lambda x: _clipped(nn.relu(x @ w)))(x)


def _unused(x, w):
    values, _ = lax.top_k(x, 2)
    return {"a": values, "b": [w, w]}


ALL = [_nested, _constant, _scanned, _chosen, _own_gradient, _unused]
INTO = {"all": lambda inside: True, "none": lambda inside: False}


def _flat(function, into="all"):
    return flatten(jax.make_jaxpr(function)(X, W), into=INTO[into])


def _names(flat):
    return [step.name for step in flat.steps]


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("function", ALL)
def test_it_computes_the_same(function, into):
    flat = _flat(function, into)
    found = jax.jit(lambda *xs: flat.run(xs))(X, W)
    expected = jax.tree.leaves(jax.jit(function)(X, W))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("function", ALL)
def test_every_value_has_one_maker_and_a_shape(function):
    flat = _flat(function)
    made = [*flat.inputs, *flat.consts, *(n for step in flat.steps for n in step.results)]
    assert sorted(made) == list(range(len(flat.shapes)))
    known = {*flat.inputs, *flat.consts}
    for step in flat.steps:
        assert {v for v in step.operands if isinstance(v, int)} <= known  # nothing before its time
        assert [flat.shape(v) for v in step.operands] == [
            v.aval.shape for v in step.equation.invars
        ]
        known.update(step.results)
    seen = {}
    flat.run([X, W], result=lambda n, value: seen.setdefault(n, value))
    assert {n: jnp.shape(value) for n, value in seen.items()} == {n: flat.shapes[n] for n in seen}
    assert seen.keys() == set(made) - set(flat.consts)


def test_calls_are_written_out_where_they_are_asked_for():
    flat = _flat(_nested)
    assert _names(flat).count("dot_general") == 2
    assert not {"jit", "pjit", "checkpoint", "remat2"} & {*_names(flat)}
    closed = jax.make_jaxpr(_nested)(X, W)
    assert len(_flat(_nested, "none").steps) == len(closed.jaxpr.eqns) == 1

    def products(inside):
        return any(e.primitive.name == "dot_general" for e in operations(inside))

    mixed = flatten(
        jax.make_jaxpr(lambda x, w: nn.silu(jax.jit(_product)(x, w)))(X, W), into=products
    )
    assert "dot_general" in _names(mixed)
    assert "logistic" not in _names(mixed)  # inside of a call without a product


def test_what_has_a_gradient_of_its_own_keeps_it():
    flat = _flat(_own_gradient)
    assert [name for name in _names(flat) if name.startswith("custom_")]

    def total(run):
        return jax.jit(jax.grad(lambda w: 100 * run(w).sum()))

    expected = total(lambda w: _own_gradient(X, w))(W)
    found = total(lambda w: flat.run([X, w])[0])(W)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.abs(expected).max() < 0.1 * np.abs(X).sum() + 1e-6  # clipped, not 200 times


def test_loops_and_branches_stay_whole():
    assert "scan" in _names(_flat(_scanned))
    assert "cond" in _names(_flat(_chosen))


def test_an_operand_is_replaced_for_one_operation_alone():
    flat = flatten(jax.make_jaxpr(lambda x, w: (x @ w, w @ w))(X, W), into=INTO["all"])
    first, second = (i for i, step in enumerate(flat.steps) if step.name == "dot_general")
    asked = []

    def operand(step, place, value):
        asked.append((step, place))
        return 0 * value if (step, place) == (first, 1) else value

    a, b = flat.run([X, W], operand=operand)
    np.testing.assert_array_equal(a, jnp.zeros_like(X))
    np.testing.assert_allclose(b, W @ W, rtol=1e-6)
    assert asked == [(first, 0), (first, 1), (second, 0), (second, 1)]


def test_a_result_is_replaced_for_all_that_comes_after():
    flat = flatten(jax.make_jaxpr(lambda x, w: (x, jnp.sin(x), w))(X, W), into=INTO["all"])
    number, _ = flat.inputs
    x, sine, w = flat.run([X, W], result=lambda n, value: value + 1 if n == number else value)
    np.testing.assert_array_equal(x, X + 1)
    np.testing.assert_allclose(sine, jnp.sin(X + 1), rtol=1e-6)
    np.testing.assert_array_equal(w, W)


def test_the_number_of_inputs_is_checked():
    with pytest.raises(ValueError, match="shorter"):
        _flat(_nested).run([X])


def test_it_runs_under_every_transformation():
    flat = _flat(_nested)
    many = jnp.stack([X, 2 * X])
    found = jax.jit(jax.vmap(lambda x: flat.run([x, W])[0]))(many)
    np.testing.assert_allclose(found, jax.vmap(_nested, (0, None))(many, W), rtol=1e-5, atol=1e-6)
    grads = [
        jax.jit(jax.grad(lambda w, run=run: run(X, w).sum()))(W)
        for run in (_nested, lambda x, w: flat.run([x, w])[0])
    ]
    np.testing.assert_allclose(*grads, rtol=1e-5, atol=1e-6)


def test_operations_are_in_order_and_calls_are_not_among_them():
    names = [e.primitive.name for e in operations(jax.make_jaxpr(_nested)(X, W))]
    assert names == ["dot_general", "tanh", "dot_general", "tanh", "add"]
    relu = [e.primitive.name for e in operations(jax.make_jaxpr(nn.relu)(X))]
    assert relu == ["max"]
    assert "dot_general" not in {
        e.primitive.name for e in operations(jax.make_jaxpr(_scanned)(X, W))
    }
