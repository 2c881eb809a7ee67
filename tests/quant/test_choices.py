import functools

import jax
import numpy as np
import pytest

from kdjax import quant
from kdjax.quant import Rule
from tests.quant.quantized import lively, normal
from tests.shrink import nets

CANDIDATES = (Rule(), Rule("int4", None), Rule(activations="dynamic"), Rule("ternary", "int8"))


@pytest.fixture(scope="module", params=["residual", "attention", "grouped"])
def made(request):
    module, shape = {
        "residual": (nets.Residual(), (4, 64)),
        "attention": (nets.Attention(), (4, 4, 5)),
        "grouped": (nets.Grouped(), (4, 6, 6, 3)),
    }[request.param]
    x = normal(1, *shape)
    variables = lively(module, x)
    names = [layer.name for layer in quant.graph_of(module.apply, variables, x).layers]
    choices = quant.Choices(module.apply, variables, x, candidates=dict.fromkeys(names, CANDIDATES))
    ranges = quant.calibrate(module.apply, variables, [x], rules=choices.rules)
    traced = []

    @jax.jit
    def run(choice):
        traced.append(1)
        return choices.run(variables, x, choice=choice, ranges=ranges)

    yield module, variables, x, choices, ranges, run
    assert len(traced) == 1  # whatever was chosen


def _expected(module, variables, x, choices, ranges, chosen):
    rules = {name: choices.candidates[name][i - 1] for name, i in chosen.items() if i}
    # A tensor that no layer makes is named after the first that reads it quantized.
    graph = quant.graph_of(module.apply, variables, x)
    every = graph.tensors(list(choices.candidates))
    found = {
        name: ranges[every[value]] for value, name in graph.tensors(quant.static(rules)).items()
    }
    run = functools.partial(
        quant.run, rules=rules, fake=lambda name, v: quant.fake_activation(v, found[name])
    )
    return np.asarray(jax.jit(lambda v, x: run(module.apply, v, x))(variables, x))


def test_nothing_chosen_is_the_model(made):
    module, variables, x, choices, _, run = made
    exact = np.asarray(jax.jit(module.apply)(variables, x))
    np.testing.assert_allclose(run(choices.choice({})), exact, atol=1e-6 * np.abs(exact).max())


def test_each_choice_is_what_its_rules_make(made):
    module, variables, x, choices, ranges, run = made
    names, numbers = list(choices.candidates), range(1, len(CANDIDATES) + 1)
    each = [{name: i} for name in names for i in numbers]
    if not isinstance(module, nets.Residual):  # each layer, and each candidate
        each = [{name: numbers[k % len(CANDIDATES)]} for k, name in enumerate(names)]
    mixed = {name: i % (len(CANDIDATES) + 1) for i, name in enumerate(names)}
    for chosen in [*each, mixed, dict.fromkeys(names, 1)]:
        found = np.asarray(run(choices.choice(chosen)))
        expected = _expected(module, variables, x, choices, ranges, chosen)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        assert np.abs(found - np.asarray(run(choices.choice({})))).max() > 0
