import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.losses import kd_kl
from kdjax.prune.allocation import by_sensitivity
from kdjax.shrink import cut, find_groups, group_l1, keep_each
from kdjax.shrink.groups import kept_positions
from kdjax.shrink.sensitivity import reach, sensitivity
from kdjax.types import BadInput

SIZE, DIM, CLASSES = 6, 4, 3


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def chain(variables, x):
    """One group: the hidden units."""
    p = variables["params"]
    hidden = jax.nn.relu(x @ p["first"]["kernel"] + p["first"]["bias"][None])
    return hidden @ p["second"]["kernel"]


def residual(variables, x):
    """Two groups: what `stem` and `branch` make together, and what is inside of the branch."""
    p = variables["params"]
    stream = x @ p["stem"]["kernel"]
    stream = stream + jax.nn.relu(stream @ p["inner"]["kernel"]) @ p["branch"]["kernel"]
    return stream @ p["head"]["kernel"]


@pytest.fixture(scope="module")
def chain_params():
    return {
        "first": {"kernel": normal(0, DIM, SIZE), "bias": normal(1, SIZE)},
        "second": {"kernel": normal(2, SIZE, CLASSES)},
    }


@pytest.fixture(scope="module")
def residual_params():
    return {
        "stem": {"kernel": normal(3, DIM, SIZE)},
        "inner": {"kernel": normal(4, SIZE, 8)},
        "branch": {"kernel": 0.1 * normal(5, 8, SIZE)},
        "head": {"kernel": normal(6, SIZE, CLASSES)},
    }


def groups_and_scores(function, params):
    groups = find_groups(function, {"params": params}, jnp.zeros([2, DIM]))
    return groups, group_l1(groups, params)


def divergence(function):
    """KL from the reference that comes with the batch: no labels."""

    def loss(params, batch):
        return kd_kl(function({"params": params}, batch["x"]), batch["reference"]).mean()

    return loss


def batches_of(function, params, *, number=2):
    inputs = [normal(20 + i, 5, DIM) for i in range(number)]
    return [{"x": x, "reference": function({"params": params}, x)} for x in inputs]


def test_golden(chain_params):
    groups, _ = groups_and_scores(chain, chain_params)
    score = np.array([3.0, 1.0, 5.0, 0.5, 2.0, 4.0])
    targets = [np.asarray(normal(30 + i, 5, CLASSES), np.float64) for i in range(2)]
    inputs = [np.asarray(normal(20 + i, 5, DIM), np.float64) for i in range(2)]
    found = sensitivity(
        lambda params, batch: jnp.square(chain({"params": params}, batch[0]) - batch[1]).mean(),
        groups,
        {"first": jnp.array(score)},
        chain_params,
        [(jnp.float32(x), jnp.float32(y)) for x, y in zip(inputs, targets, strict=True)],
        sparsities=[0.5, 0.1, 0.8],
    )

    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), chain_params)

    def loss(units):
        hidden = [np.maximum(x @ p["first"]["kernel"] + p["first"]["bias"], 0) for x in inputs]
        logits = [h[:, units] @ p["second"]["kernel"][units] for h in hidden]
        return np.mean([np.mean((a - b) ** 2) for a, b in zip(logits, targets, strict=True)])

    worst = np.argsort(score)  # 0.6, 3 and 4.8 of 6 units fall: 1, 3 and 5
    expected = {
        s: loss(np.sort(worst[n:])) - loss(worst) for s, n in ((0.1, 1), (0.5, 3), (0.8, 5))
    }
    assert list(found) == ["first"]
    assert list(found["first"]) == [0.1, 0.5, 0.8]
    np.testing.assert_allclose([*found["first"].values()], [*expected.values()], rtol=1e-4)


def test_where_nothing_falls_the_loss_stays(chain_params):
    groups, scores = groups_and_scores(chain, chain_params)
    batches = batches_of(chain, chain_params)

    def curve(**kwargs):
        loss = divergence(chain)
        return sensitivity(loss, groups, scores, chain_params, batches, **kwargs)["first"]

    assert curve(sparsities=[0.05]) == {0.05: 0.0}  # round(0.3) units
    assert curve(sparsities=[0.5], multiple=6) == {0.5: 0.0}
    assert curve(sparsities=[0.5])[0.5] > 0


def test_one_compilation_for_all(residual_params):
    groups, scores = groups_and_scores(residual, residual_params)
    assert len(groups) == 2
    traced = []

    def loss(params, batch):
        traced.append(batch)
        return divergence(residual)(params, batch)

    batches = batches_of(residual, residual_params, number=3)
    found = sensitivity(
        loss, groups, scores, residual_params, iter(batches), sparsities=[0.2, 0.4, 0.6, 0.8]
    )
    assert len(traced) == 1
    increases = [increase for curve in found.values() for increase in curve.values()]
    assert len(set(increases)) == 8  # each mask was seen


def test_layer_by_layer_a_shared_channel_seems_worthless(residual_params):
    # A branch that begins at zero, as residual branches often do.
    params = {**residual_params, "branch": {"kernel": jnp.zeros([8, SIZE])}}
    groups, scores = groups_and_scores(residual, params)
    assert groups["stem"].size == SIZE
    loss, (batch,) = divergence(residual), batches_of(residual, params, number=1)
    found = sensitivity(loss, groups, scores, params, [batch], sparsities=[0.5])

    keep = keep_each(groups, scores, {"stem": 0.5})["stem"]
    branch_alone = {**params, "branch": {"kernel": params["branch"]["kernel"] * keep[None]}}
    assert float(loss(branch_alone, batch) - loss(params, batch)) == 0
    assert found["stem"][0.5] > 0.1


@pytest.mark.parametrize("sparsity", [0.3, 0.7])
def test_masked_is_cut(residual_params, sparsity):
    groups, scores = groups_and_scores(residual, residual_params)
    loss, (batch,) = divergence(residual), batches_of(residual, residual_params, number=1)
    found = sensitivity(loss, groups, scores, residual_params, [batch], sparsities=[sparsity])
    shapes = {f"params/{layer}/kernel": p["kernel"].shape for layer, p in residual_params.items()}
    for group in groups:
        keep = keep_each(groups, scores, {group.name: sparsity})[group.name]
        left = kept_positions(groups, {group.name: np.asarray(keep)}, shapes)
        smaller = cut({"params": residual_params}, left)["params"]
        assert smaller["head"]["kernel"].size + smaller["inner"]["kernel"].size < SIZE * 11
        increase = float(loss(smaller, batch) - loss(residual_params, batch))
        assert found[group.name][sparsity] == pytest.approx(increase, rel=1e-4)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31 - 1), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5))
def test_energy_law(seed, sparsities):
    """Of a loss that is minus the energy, the increase is the energy of what is masked."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "first": {
            "kernel": jax.random.normal(keys[0], [DIM, SIZE]),
            "bias": jax.random.normal(keys[1], [SIZE]),
        },
        "second": {"kernel": jax.random.normal(keys[2], [SIZE, CLASSES])},
    }
    groups, scores = groups_and_scores(chain, params)
    curve = sensitivity(
        lambda params, batch: -sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params)),
        groups,
        scores,
        params,
        [None],
        sparsities=sparsities,
    )["first"]
    assert [*curve] == sorted(set(sparsities))
    by_unit = sum(
        np.square(np.asarray(leaf, np.float64)).sum(others)
        for leaf, others in (
            (params["first"]["kernel"], 0),
            (params["first"]["bias"], ()),
            (params["second"]["kernel"], 1),
        )
    )
    for sparsity, increase in curve.items():
        gone = ~np.asarray(keep_each(groups, scores, sparsity)["first"])
        assert increase == pytest.approx(by_unit[gone].sum(), rel=1e-4, abs=1e-4)


def test_a_curve_ends_where_the_loss_is_no_number(chain_params):
    groups, scores = groups_and_scores(chain, chain_params)

    def loss(params, batch):
        alive = (params["first"]["bias"] != 0).sum()
        return jnp.where(alive == 3, jnp.inf, 6.0 - alive)

    found = sensitivity(
        loss, groups, scores, chain_params, [None], sparsities=[0.17, 0.33, 0.5, 0.67]
    )
    assert found == {"first": {0.17: 1.0, 0.33: 2.0}}
    assert by_sensitivity(found, groups.sizes, 0.3)["first"] == pytest.approx(0.3)


def test_a_group_without_scores_is_left_out(residual_params):
    groups, scores = groups_and_scores(residual, residual_params)
    found = sensitivity(
        divergence(residual),
        groups,
        {"inner": scores["inner"]},
        residual_params,
        batches_of(residual, residual_params),
        sparsities=[0.5],
    )
    assert list(found) == ["inner"]


@pytest.mark.parametrize(
    ("sparsities", "batches", "loss", "field"),
    [
        ([], [None], 0.0, "sparsities"),
        ([0.0, 0.5], [None], 0.0, "sparsities"),
        ([1.0], [None], 0.0, "sparsities"),
        ([0.5], [], 0.0, "batches"),
        ([0.5], [None], float("nan"), "loss"),
    ],
)
def test_bad_input(chain_params, sparsities, batches, loss, field):
    groups, scores = groups_and_scores(chain, chain_params)
    with pytest.raises(BadInput, match=field) as error:
        sensitivity(
            lambda params, batch: jnp.float32(loss),
            groups,
            scores,
            chain_params,
            batches,
            sparsities=sparsities,
        )
    assert "\n" not in str(error.value)


def test_reach_is_what_can_be_allocated():
    curves, sizes = (
        {"a": {0.5: 0.1, 0.8: 0.3}, "b": {0.25: 0.0}, "c": {}},
        {"a": 6, "b": 12, "c": 2},
    )
    most = reach(curves, sizes)
    assert most == pytest.approx((0.8 * 6 + 0.25 * 12) / 20)
    assert by_sensitivity(curves, sizes, most) == pytest.approx({"a": 0.8, "b": 0.25, "c": 0.0})
    with pytest.raises(BadInput, match="above"):
        by_sensitivity(curves, sizes, most + 1e-6)
    assert reach({}, {}) == 0
