import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from jax import lax

from kdjax.train import TrainState, weigh

KEY = jax.random.key(0)
LOSSES = np.array([1.0, 2.0, 4.0, 8.0], np.float32)


def forward(params, state, batch, key):
    """Per-example losses that are scaled by a parameter."""
    return {"losses": params * batch["losses"]}, {"count": state.model_state["count"] + 1}


def at(step=0):
    return TrainState(jnp.int32(step), None, None, {"count": 3})


def each(outputs, batch):
    return outputs["losses"]


def chosen(outputs, batch):
    return outputs["losses"], batch["rows"]


def alone(outputs, batch):
    return outputs["losses"].sum()


def batch(rows=(True, False, True, False)):
    return {"losses": jnp.asarray(LOSSES), "rows": jnp.asarray(rows)}


def test_the_loss_is_the_weighted_sum_of_the_means():
    terms = {"each": (0.9, each), "chosen": (0.5, chosen), "alone": (0.1, alone)}
    loss, (model_state, metrics) = weigh(forward, terms)(2.0, at(), batch(), KEY)
    means = {"each": 2 * LOSSES.mean(), "chosen": 2 * (1 + 4) / 2, "alone": 2 * LOSSES.sum()}
    # Each is logged as it is, before its weight.
    assert metrics == pytest.approx({f"loss/{name}": mean for name, mean in means.items()})
    weighted = 0.9 * means["each"] + 0.5 * means["chosen"] + 0.1 * means["alone"]
    assert float(loss) == pytest.approx(weighted)
    assert model_state == {"count": 4}


def test_a_weight_may_be_a_schedule_over_the_step():
    ramp = optax.linear_schedule(0.0, 1.0, transition_steps=10)
    objective = weigh(forward, {"each": (ramp, each), "alone": (1.0, alone)})
    for step in (0, 5, 10, 99):
        loss, (_, metrics) = objective(1.0, at(step), batch(), KEY)
        assert float(loss) == pytest.approx(min(step / 10, 1) * LOSSES.mean() + LOSSES.sum())
        assert float(metrics["loss/each"]) == LOSSES.mean()


def test_where_no_row_is_chosen_the_term_is_zero_and_sends_no_gradient():
    objective = weigh(forward, {"chosen": (1.0, chosen)})
    nothing = batch(rows=[False] * 4)
    (loss, _), grad = jax.value_and_grad(objective, has_aux=True)(2.0, at(), nothing, KEY)
    assert (float(loss), float(grad)) == (0, 0)


def test_a_row_that_is_not_chosen_may_have_any_loss():
    objective = weigh(forward, {"chosen": (1.0, chosen)})
    wild = {"losses": jnp.array([1.0, jnp.inf, 4.0, jnp.nan]), "rows": batch()["rows"]}
    assert float(objective(2.0, at(), wild, KEY)[0]) == 5


def chosen_only(axis_name):
    objective = weigh(forward, {"chosen": (0.5, chosen)}, axis_name=axis_name)

    def values(params, batch):
        (loss, (_, metrics)), grad = jax.value_and_grad(objective, has_aux=True)(
            params, at(), batch, KEY
        )
        return loss, metrics["loss/chosen"], grad

    return values


@jax.jit
def on_devices(params, batch):
    """What each of the devices says once the step has averaged over them."""
    one = chosen_only("data")

    def averaged(batch):
        return lax.pmean(one(params, batch), "data")

    return jax.vmap(averaged, axis_name="data")(batch)


on_one_device = jax.jit(chosen_only(None))


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.bool_, (4, 3)),
    hnp.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=16)),
)
def test_the_mean_over_chosen_rows_is_that_of_all_devices(rows, losses):
    found = on_devices(2.0, {"losses": losses, "rows": rows})
    expected = on_one_device(2.0, {"losses": losses.ravel(), "rows": rows.ravel()})
    by_hand = 2 * losses[rows].mean(dtype=np.float64) if rows.any() else 0.0
    assert float(expected[1]) == pytest.approx(by_hand, rel=1e-5, abs=1e-5)
    for one, of_all in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, np.full(4, of_all), rtol=1e-5, atol=1e-5)
