"""Mixed precision: which numbers each layer has, to meet a budget."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from kdjax import config, evaluate, parse, quant, tree
from kdjax.artifacts.model import Spec
from kdjax.contexts.context import Context
from kdjax.stages.export import TIMED_IN
from kdjax.types import BadInput, Variables, under

FLOAT = "float"
_TRIES = 8

Rules = Mapping[str, quant.Rule]


def mixed_rules(
    context: Context,
    c: config.Quantize,
    spec: Spec,
    variables: Variables,
    latency: Callable[[Rules], float],
) -> tuple[Rules, dict[str, Any]]:
    """The rules that hurt least within the budget, and what they cost, for the manifest.

    Bytes are counted. Milliseconds are measured: of the model in float and with each of the numbers
    throughout, of which a layer has its share by its operations; then of the model with the numbers
    that were chosen, and those are chosen again from a smaller budget while it is too slow.

    Args:
      context: of the stage.
      c: how; it has a budget and a sensitivity.
      spec: of the float model.
      variables: of it.
      latency: of the model with some rules, in milliseconds.

    Raises:
      BadInput: the budget cannot be met, or there is no such sensitivity.
    """
    path, graph = context.path, spec.layers()
    hurts, rules = _measured(context, c, graph, path)
    folded = spec.folded(variables)

    others: float
    assert c.budget is not None
    match c.budget.bytes, c.budget.latency_ms:
        case int(most), None:
            costs, others = _bytes(graph, folded, hurts, rules)
            _check_bytes(most, others, costs, path)
            chosen = _allocated(hurts, costs, most - others, path)
            spent = others + sum(costs[layer][name] for layer, name in chosen.items())
            if not (found := _rules(chosen, rules)):
                raise _met(path)
            return found, {"budget": {"bytes": most}, "spent": {"bytes": round(spent)}}
        case _, most:
            assert most is not None  # one of the two is given
    in_float = latency({})
    if in_float <= most:
        raise _met(path)
    uniform = {
        name: latency({layer: rules[name] for layer, found in hurts.items() if name in found})
        for name in rules
    }
    costs, others = _milliseconds(graph, hurts, {FLOAT: in_float, **uniform})
    aim, least, taken = most, others + _least(costs), in_float
    for _ in range(_TRIES):
        # The cheapest are tried before it is given up: what they cost is an estimate.
        chosen = _allocated(hurts, costs, max(aim, least) * (1 + 1e-9) - others, path)
        found = _rules(chosen, rules)
        taken = latency(found) if found else in_float
        if taken <= most:
            return found, {"budget": {"latency_ms": most}, "spent": {"latency_ms": taken}}
        if aim <= least:
            break
        aim *= min(most / taken, 0.98)
    raise BadInput(
        f"{path}.budget",
        f"{most:g} ms cannot be met",
        f"the last choice of numbers took {taken:.3g} ms",
    )


def check_mixed(
    context: Context, c: config.Quantize, spec: Spec, graph: quant.Graph
) -> dict[str, quant.Rule]:
    """Some rules that a budget may lead to, before anything has been measured.

    Raises:
      BadInput: there is no such sensitivity, the budget is none, or no choice of numbers meets it.
    """
    path = context.path
    hurts, rules = _measured(context, c, graph, path)
    given = {name: value for name, value in vars(c.budget).items() if value is not None}
    if len(given) != 1 or not given.keys() <= {"bytes", "latency_ms"}:
        raise BadInput(f"{path}.budget", "give bytes or latency_ms")
    if "latency_ms" in given:
        TIMED_IN.require()
    elif context.exact:
        folded = jax.eval_shape(spec.folded, spec.abstract())
        costs, others = _bytes(graph, folded, hurts, rules)
        _check_bytes(given["bytes"], others, costs, path)
    # Any would do, but for those that no measured choice would end with.
    names = sorted(rules, key=lambda name: rules[name].activations == "dynamic")
    return {
        layer: rules[next(name for name in names if name in found)]
        for layer, found in hurts.items()
    }


def _check_bytes(
    most: int, others: float, costs: Mapping[str, Mapping[str, float]], path: str
) -> None:
    least = others + _least(costs)
    if least > most:
        raise BadInput(
            f"{path}.budget", f"{most} cannot be met", f"the cheapest numbers take {least:g} bytes"
        )
    if others + sum(found[FLOAT] for found in costs.values()) <= most:
        raise _met(path)


def _rules(chosen: Mapping[str, str], rules: Rules) -> dict[str, quant.Rule]:
    return {layer: rules[name] for layer, name in chosen.items() if name != FLOAT}


def _met(path: str) -> BadInput:
    return BadInput(f"{path}.budget", "the model meets it in float", "nothing is left to quantize")


def _measured(
    context: Context, c: config.Quantize, graph: quant.Graph, path: str
) -> tuple[dict[str, dict[str, float]], dict[str, quant.Rule]]:
    """`{layer: {numbers: increase}}`, float among them, and the rules of the numbers."""
    assert c.sensitivity is not None
    said = context.inputs[c.sensitivity].manifest.get("sensitivity", {})
    if said.get("model") != c.model or not said.get("layers"):
        raise BadInput(
            f"{path}.sensitivity",
            f"{c.sensitivity} is not a stage of kind sensitivity of {c.model} that has numbers",
        )
    hurts = {
        layer: {FLOAT: 0.0, **found}
        for layer, found in said["layers"].items()
        if not (c.float_edges and layer in graph.edges)
    }
    if not hurts:
        raise BadInput(
            f"{path}.sensitivity", f"{c.sensitivity} measured no layer that is not an edge"
        )
    rules = {
        name: parse.parse(quant.Rule, plain, f"{path}.sensitivity")
        for name, plain in said["numbers"].items()
    }
    return hurts, rules


def _allocated(hurts, costs, budget: float, path: str) -> dict[str, str]:
    """The choice of numbers, with the path in what is said where there is none."""
    with under(path):
        return quant.allocate(hurts, costs, budget=budget)


def _least(costs: Mapping[str, Mapping[str, float]]) -> float:
    return sum(min(found.values()) for found in costs.values())


def _bytes(
    graph: quant.Graph, folded: Variables, hurts, rules: Rules
) -> tuple[dict[str, dict[str, float]], float]:
    """What the numbers of each layer take, and what all else takes in float32."""
    leaves = tree.named_leaves(folded["params"])
    layers = {layer.name: layer for layer in graph.layers}
    costs: dict[str, dict[str, float]] = {}
    for name, found in hurts.items():
        leaf = leaves[name.partition("#")[0]]
        size = int(leaf.size)
        scales = graph.scales(layers[name])
        costs[name] = {
            kind: 4.0 * size
            if kind == FLOAT
            else size * quant.BITS[rules[kind].weights] / 8 + 4 * scales
            for kind in found
        }
    others = 4 * tree.size(folded["params"]) - sum(found[FLOAT] for found in costs.values())
    return costs, others


def _milliseconds(
    graph: quant.Graph, hurts, totals: Mapping[str, float]
) -> tuple[dict[str, dict[str, float]], float]:
    """What each layer takes of the milliseconds of the whole, and what those beside them do."""
    work = {
        layer.name: evaluate.equation_flops(graph.flat.steps[layer.step].equation)
        for layer in graph.layers
    }
    within = sum(work[name] for name in hurts)
    # They are in float whatever the others are in.
    others = totals[FLOAT] * (1 - within / sum(work.values()))
    costs = {
        name: {kind: max(totals[kind] - others, 0.0) * work[name] / within for kind in found}
        for name, found in hurts.items()
    }
    return costs, others
