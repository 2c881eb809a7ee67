import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.data.feed import chunks
from kdjax.train import TrainState, apply_model, make_run_steps, make_train_step, observing, weigh
from kdjax.train.parallel import mapped, single
from kdjax.train.replay import replay


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(1, name="last")(jnp.log(nn.Dense(2, name="first")(x) ** 2 * 0 + x))


def lines(poison, *, way=single, accumulate=1, step=3):
    """Of a run in which the logarithm of example 13 is not finite at step `poison`."""
    parallel, tx = way(), optax.sgd(0.1)

    def forward(params, state, batch, key):
        out, model_state = apply_model(Model(), params, state.model_state, batch["x"])
        return {"out": out}, model_state

    def squares(outputs, batch):
        return outputs["out"][:, 0] ** 2

    objective = weigh(
        forward,
        {"square": (1.0, squares), "fine": (1.0, lambda outputs, batch: batch["x"][:, 0] ** 2)},
        axis_name=parallel.axis_name,
    )
    made = make_train_step(objective, tx, accumulate=accumulate, axis_name=parallel.axis_name)

    def compiled():
        def batch(resident, feed, key):
            return observing.with_ids({"x": feed["x"]}, feed["id"])

        return parallel.compile(make_run_steps(batch, made))

    def feeds(start, stop):
        for first, end in chunks(start, stop, 2):
            x = np.full((end - first, 16, 2), 2.0, np.float32)
            if first < poison <= end:
                x[poison - 1 - first, 3] = -1.0
            yield end, {"x": x, "id": np.tile(np.arange(10, 26, dtype=np.uint32), (end - first, 1))}

    variables = Model().init(jax.random.key(0), jnp.ones((1, 2)), train=False)
    return replay(
        parallel.replicate(TrainState.start(variables, tx)),
        run_steps=compiled(),
        compile_anew=compiled,
        resident={},
        feeds=feeds,
        key=parallel.replicate(jax.random.key(0)),
        parallel=parallel,
        step=step,
    ).lines


@pytest.mark.parametrize(("way", "accumulate"), [(single, 1), (mapped, 2)])
def test_the_example_the_term_and_the_first_value_are_named(way, accumulate):
    found = lines(3, way=way, accumulate=accumulate)
    assert found[0] == "step 3, from the start"
    assert found[1] == f"ids of the batch: {', '.join(map(str, range(10, 26)))}"
    assert "loss/square: nan" in found
    assert "the term that is not finite: loss/square" in found
    assert "the first value that is not finite: activation last, of the ids 13" in found
    assert "loss/square is not finite for the ids 13" in found
    assert not any("loss/fine is not finite" in line for line in found)
    assert any("gradient of last/kernel" in line for line in found)


def test_a_step_in_which_everything_is_finite_says_so():
    assert lines(5)[-1] == "every value of this step is finite"


def test_what_was_broken_before_the_step_is_named():
    (line,) = (line for line in lines(2) if line.startswith("not finite before the step: "))
    assert "params last/kernel" in line
