import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.train import optimizers
from kdjax.types import BadInput

STEPS, DECAY = 6, 0.05
KERNELS = ".*/kernel"


def problem():
    """Parameters of a layer, and gradients for each step."""
    random = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,)}
    params = {name: random.normal(size=shape) for name, shape in shapes.items()}
    grads = [
        {name: random.normal(size=shape) for name, shape in shapes.items()} for _ in range(STEPS)
    ]
    return params, grads


def rates():
    """A learning rate that is another one at each step."""
    return [0.1 / (1 + step) for step in range(STEPS)]


def schedule(step):
    return 0.1 / (1 + step)


def taken(tx):
    params, grads = problem()
    params = {"layer": jax.tree.map(jnp.float32, params)}
    state = tx.init(params)
    for grad in grads:
        updates, state = tx.update({"layer": jax.tree.map(jnp.float32, grad)}, state, params)
        params = optax.apply_updates(params, updates)
    return params["layer"]


def decay_of(name):
    return DECAY if name == "kernel" else 0.0


def sgd_by_hand(*, momentum, nesterov):
    """As `torch.optim.SGD` documents it, dampening 0."""
    params, grads = problem()
    for name, p in params.items():
        buffer = np.zeros_like(p)
        for rate, grad in zip(rates(), grads, strict=True):
            g = grad[name] + decay_of(name) * p
            buffer = momentum * buffer + g
            p = p - rate * (g + momentum * buffer if nesterov else buffer)
        params[name] = p
    return params


def adamw_by_hand(*, b1, b2):
    """Loshchilov and Hutter's algorithm 2, epsilon outside the root."""
    params, grads = problem()
    for name, p in params.items():
        first, second = np.zeros_like(p), np.zeros_like(p)
        for t, (rate, grad) in enumerate(zip(rates(), grads, strict=True), 1):
            first = b1 * first + (1 - b1) * grad[name]
            second = b2 * second + (1 - b2) * grad[name] ** 2
            step = (first / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + 1e-8)
            p = p - rate * (step + decay_of(name) * p)
        params[name] = p
    return params


def lars_by_hand(*, momentum, trust):
    """The rate of a kernel is scaled by norm over norm, a bias takes plain momentum."""
    params, grads = problem()
    for name, p in params.items():
        velocity = np.zeros_like(p)
        for rate, grad in zip(rates(), grads, strict=True):
            g = grad[name] + decay_of(name) * p
            ratio = 1.0
            if name == "kernel":
                ratio = trust * np.linalg.norm(p) / np.linalg.norm(g)
            velocity = momentum * velocity + rate * ratio * g
            p = p - velocity
        params[name] = p
    return params


def sgd(**how):
    return optimizers.sgd(schedule, weight_decay=DECAY, decayed=KERNELS, **how)


def adamw(**how):
    return optimizers.adamw(schedule, weight_decay=DECAY, decayed=KERNELS, **how)


def lars(**how):
    return optimizers.lars(schedule, weight_decay=DECAY, decayed=KERNELS, **how)


@pytest.mark.parametrize(
    ("build", "by_hand", "how"),
    [
        (sgd, sgd_by_hand, {"momentum": 0.0, "nesterov": False}),
        (sgd, sgd_by_hand, {"momentum": 0.9, "nesterov": False}),
        (sgd, sgd_by_hand, {"momentum": 0.9, "nesterov": True}),
        (adamw, adamw_by_hand, {"b1": 0.9, "b2": 0.999}),
        (adamw, adamw_by_hand, {"b1": 0.5, "b2": 0.8}),
        (lars, lars_by_hand, {"momentum": 0.9, "trust": 0.001}),
        (lars, lars_by_hand, {"momentum": 0.0, "trust": 0.02}),
    ],
)
def test_parameters_after_some_steps_by_hand(build, by_hand, how):
    found, expected = taken(build(**how)), by_hand(**how)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("build", [sgd, adamw, lars])
def test_only_what_the_pattern_names_decays(build):
    how = {sgd: {"momentum": 0.9, "nesterov": False}, adamw: {"b1": 0.9, "b2": 0.99}}
    tx = build(**how.get(build, {"momentum": 0.9, "trust": 0.1}))
    params = {"layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(still, tx.init(params), params)
    assert (updates["layer"]["kernel"] < 0).all()
    assert (updates["layer"]["bias"] == 0).all()


def test_warmup_and_cosine_at_their_ends():
    schedule = optimizers.warmup_cosine(2.0, steps=50, warmup_steps=10)
    # Linear to step 10, then half a cosine of 40 steps.
    values = {0: 0.0, 1: 0.2, 5: 1.0, 10: 2.0, 20: 1 + np.cos(np.pi / 4), 30: 1.0, 50: 0.0, 60: 0.0}
    for step, value in values.items():
        assert float(schedule(jnp.int32(step))) == pytest.approx(value, abs=1e-6)


def test_cosine_without_warmup_begins_at_its_peak():
    schedule = optimizers.warmup_cosine(2.0, steps=40)
    values = {0: 2.0, 10: 1 + np.cos(np.pi / 4), 20: 1.0, 39: 1 + np.cos(np.pi * 39 / 40), 40: 0.0}
    for step, value in values.items():
        assert float(schedule(jnp.int32(step))) == pytest.approx(value, abs=1e-6)


def test_stairs_go_down_at_exactly_their_steps():
    schedule = optimizers.stairs(0.5, at_steps=(150, 180), factor=0.1)
    values = {0: 0.5, 149: 0.5, 150: 0.05, 179: 0.05, 180: 0.005, 10_000: 0.005}
    for step, value in values.items():
        assert float(schedule(jnp.int32(step))) == pytest.approx(value, rel=1e-6)


def test_stairs_without_a_step_are_flat():
    assert float(optimizers.stairs(0.5, at_steps=(), factor=0.1)(jnp.int32(7))) == 0.5


def test_a_schedule_over_steps_is_not_that_over_epochs():
    # The count of the optimizer is the step: the first update is made with the rate of step 0.
    tx = sgd(momentum=0.0, nesterov=False)
    params = {"layer": {"bias": jnp.zeros(1)}}
    updates, _ = tx.update({"layer": {"bias": jnp.ones(1)}}, tx.init(params), params)
    assert float(updates["layer"]["bias"][0]) == pytest.approx(-0.1)


def test_a_penalty_on_scales_by_hand():
    tx = optimizers.l1(0.01, penalized=".*/scale")
    params = {"norm": {"scale": jnp.array([2.0, -3.0, 0.0]), "bias": jnp.ones(3)}}
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["norm"]["scale"], [0.51, 0.49, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(updates["norm"]["bias"], grads["norm"]["bias"])
    penalty = jax.grad(lambda scale: 0.01 * jnp.abs(scale).sum())(params["norm"]["scale"][:2])
    np.testing.assert_allclose(updates["norm"]["scale"][:2] - 0.5, penalty, rtol=1e-5)


def test_a_penalty_on_nothing_is_refused():
    tx = optimizers.l1(0.01, penalized=".*/scale")
    params = {"dense": {"bias": jnp.ones(3)}}
    with pytest.raises(BadInput, match=r"scale_l1: '.\*/scale' matches no parameter"):
        tx.update(params, tx.init(params), params)
