"""What a stage prunes while it trains, and what of it is on disk in the end."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from kdjax import config, keys, prune, shrink, tree
from kdjax.artifacts.artifact import VARIABLES, Artifact
from kdjax.contexts.context import Context
from kdjax.prune import allocation, masks, schedules, scores
from kdjax.shrink import Groups
from kdjax.train import BESIDE, TrainState, load_tree
from kdjax.train.freezing import NEVER
from kdjax.types import BadInput, PyTree, Variables, under

UNIT_SCORES: Mapping[str, Callable[[Groups, PyTree], shrink.Scores]] = {
    "group_l1": shrink.group_l1,
    "group_l2": shrink.group_l2,
    "producer_l1": shrink.producer_l1,
    "scale": shrink.scale_l1,
}


def unit_scores(name: str, groups: Groups, params: PyTree) -> shrink.Scores:
    """Of arrays: one program instead of one for each operation and shape."""
    return jax.jit(functools.partial(UNIT_SCORES[name], groups))(params)


_ALLOCATED = {"uniform": allocation.uniform, "erk": allocation.erdos_renyi_kernel}


def prepare(
    context: Context,
    c: config.Training,
    *,
    variables: Variables,
    tx: optax.GradientTransformation,
    groups: Callable[[], Groups],
    begun: Artifact | None = None,
    early: Callable[[], Variables] | None = None,
    fresh: Callable[[], Variables] | None = None,
) -> tuple[Variables, optax.GradientTransformation]:
    """The first parameters and the optimizer of a stage that prunes, or that begins from zeros.

    Args:
      context: of the stage.
      c: its config.
      variables: to begin with.
      tx: the optimizer.
      groups: of the units of the model, found when asked for.
      begun: the artifact that `variables` are from, if any: what is pruned in it stays so.
      early: its variables at its `rewind_step`.
      fresh: new random variables.

    Raises:
      BadInput: the pruning does not fit the training or the model.
    """
    how = _of_model(c.prune, variables["params"])
    with under(context.path):
        masks_before = _zeros_of(begun, variables["params"])
        match how:
            case None:
                held = tx if masks_before is None else prune.hold_fixed(tx, masks_before)
            case config.Ticket():
                variables, held = _ticket(how, variables, tx, early=early, fresh=fresh, begun=begun)
            case config.Gradual():
                held = _gradual(context, how, variables, tx, groups, before=masks_before)
            case config.SparseTraining():
                if masks_before is not None:
                    raise BadInput(
                        "start_from",
                        "it is pruned already",
                        "train sparse from a dense model, or from none",
                    )
                variables, held = _sparse(context, how, variables, tx)
        _refuse_frozen(c, held, variables["params"])
        if context.exact:
            _try_out(held, variables["params"])
    return variables, held


def _of_model(c: config.Prune | None, params: PyTree) -> config.Prune | None:
    """Modules that are left behind after training are not pruned."""
    if c is None or BESIDE not in params:
        return c
    return dataclasses.replace(c, prunable=f"(?!{BESIDE}/)(?:{c.prunable})")


def _refuse_frozen(c: config.Training, tx: optax.GradientTransformation, params: PyTree) -> None:
    """What is frozen keeps its bits: it is not pruned before it is trained."""
    freezing = c.optimizer.freezing
    if c.prune is None or freezing is None:
        return
    masks = prune.find_masks(jax.eval_shape(tx.init, params))
    since = tree.named_leaves(freezing.since(params))
    # A ticket is masked before the first step, and never again.
    begin = math.inf if isinstance(c.prune, config.Ticket) else c.prune.begin_step + 1
    for name in tree.named_leaves(masks):
        if since[name] >= begin:
            until = "" if since[name] == NEVER else f" until step {since[name]}"
            raise BadInput(
                "prune.prunable",
                f"{name} is pruned, and the optimizer has it frozen{until}",
                "leave it out of prunable, or of optimizer.frozen and optimizer.unfreeze",
            )


def _try_out(tx: optax.GradientTransformation, params: PyTree) -> None:
    """One update without arrays: what a rule refuses is refused before anything is trained."""
    state = jax.eval_shape(tx.init, params)
    jax.eval_shape(tx.update, params, state, params)


def _zeros_of(begun: Artifact | None, params: PyTree) -> PyTree | None:
    """The masks of a pruned model: its zeros, in the parameters that were pruned."""
    names = set(begun.manifest.get("masked", ())) if begun is not None else set()
    leaves = tree.named_leaves(params)
    if not names & set(leaves):
        return None
    found = [jnp.asarray(leaf) != 0 if name in names else None for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def _within(before: PyTree | None, prunable: str, params: PyTree) -> PyTree | None:
    """Masks to begin with for just the parameters that `prunable` matches."""
    if before is None:
        return None
    given, chosen = tree.named_leaves(before), tree.named_leaves(tree.match(params, prunable))
    if odd := [name for name in given if not chosen[name]]:
        raise BadInput(
            "prune.prunable", f"{odd[0]} is pruned already", "match it, too, to keep its zeros"
        )
    leaves = tree.named_leaves(params)
    found = [
        given.get(name, jnp.ones(leaf.shape, bool)) if chosen[name] else None
        for name, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def _schedule(c: config.Gradual, target: float) -> optax.Schedule:
    between = {"begin_step": c.begin_step, "end_step": c.end_step}
    match c.schedule:
        case "cubic":
            return schedules.cubic(target, **between)
        case "linear":
            return schedules.linear(target, **between)
        case "one_shot":
            return schedules.one_shot(target, at_step=c.begin_step)
        case "periodic":
            return schedules.periodic(target, rounds=c.rounds, **between)


def _gradual(
    context: Context,
    c: config.Gradual,
    variables: Variables,
    tx: optax.GradientTransformation,
    groups: Callable[[], Groups],
    *,
    before: PyTree | None,
) -> optax.GradientTransformation:
    params, target = variables["params"], 0.0 if c.sparsity is None else c.sparsity
    steps = {
        "begin_step": c.begin_step,
        "end_step": c.begin_step if c.schedule == "one_shot" else c.end_step,
        "every_steps": c.every_steps,
    }
    if isinstance(c.pattern, config.Units):
        found, score = groups(), UNIT_SCORES[c.pattern.score]
        names = shrink.unit_parameters(found)
        prunable = "|".join(map(re.escape, names))
        rule = shrink.gradual_units(
            found,
            _schedule(c, target),
            score=score,
            together=c.pattern.ranking == "global",
        )
        return prune.hold(
            tx, rule, prunable=prunable, masks=_within(before, prunable, params), **steps
        )
    given: dict[str, Any] = {"score": _weight_score(c.score)}
    if c.score == "random":
        given["key"] = keys.stream(context.key, f"{context.name}/prune")
    schedule = _schedule(c, target)
    match c.allocation:
        case "global":
            rule = prune.gradual_global(schedule, mask=masks.global_topk_masks, **given)
        case "uniform":
            rule = prune.gradual(schedule, mask=_mask(c.pattern), **given)
        case shares:
            by_name = (
                _ALLOCATED[shares](params, target, prunable=c.prunable)
                if isinstance(shares, str)
                else allocation.by_hand(params, dict(shares))
            )
            if odd := [n for n in by_name if not re.fullmatch(c.prunable, n)]:
                raise BadInput("prune.allocation", f"prunable does not match {odd[0]}")
            chosen = allocation.matching(params, c.prunable, "prune.prunable")
            plan = {name: _schedule(c, by_name.get(name, 0.0)) for name in chosen}
            rule = prune.gradual(plan, mask=_mask(c.pattern), **given)
    return prune.hold(
        tx, rule, prunable=c.prunable, masks=_within(before, c.prunable, params), **steps
    )


def _weight_score(name: str):
    match name:
        case "saliency":
            return lambda weight, grad, key: scores.saliency(weight, grad)
        case "random":
            return lambda weight, grad, key: scores.random(key, weight)
    return lambda weight, grad, key: scores.magnitude(weight)


def _mask(pattern: config.Pattern):
    match pattern:
        case config.NM(n=n, m=m):
            return lambda score, sparsity: masks.nm_mask(score, n=n, m=m)
        case config.Blocks(shape=shape):
            return lambda score, sparsity: masks.block_mask(score, sparsity, block=shape)
        case config.Filters():
            return lambda score, sparsity: masks.channel_mask(score, sparsity)
    return masks.topk_mask


def _sparse(
    context: Context,
    c: config.SparseTraining,
    variables: Variables,
    tx: optax.GradientTransformation,
) -> tuple[Variables, optax.GradientTransformation]:
    params = variables["params"]
    drawn = prune.random_masks(
        keys.stream(context.key, f"{context.name}/masks"),
        params,
        _ALLOCATED[c.allocation](params, c.sparsity, prunable=c.prunable),
    )
    fraction = schedules.cosine_fraction(c.fraction, end_step=c.end_step)
    rule = (
        prune.rigl(fraction=fraction)
        if c.method == "rigl"
        else prune.sparse_evolution(
            keys.stream(context.key, f"{context.name}/grow"), fraction=fraction
        )
    )
    held = prune.hold(
        tx,
        rule,
        prunable=c.prunable,
        begin_step=c.begin_step,
        end_step=c.end_step,
        every_steps=c.every_steps,
        masks=drawn,
    )
    return {**variables, "params": tree.apply_masks(drawn, params)}, held


def _ticket(
    c: config.Ticket,
    variables: Variables,
    tx: optax.GradientTransformation,
    *,
    early: Callable[[], Variables] | None,
    fresh: Callable[[], Variables] | None,
    begun: Artifact | None,
) -> tuple[Variables, optax.GradientTransformation]:
    if begun is None or early is None or "early" not in begun.manifest:
        raise BadInput(
            "prune",
            "a ticket begins from a stage that keeps its early parameters",
            "give start_from a stage with a rewind_step, or another ticket",
        )
    params = variables["params"]
    chosen = allocation.matching(params, c.prunable, "prune.prunable")
    magnitudes = {name: jnp.abs(leaf) for name, leaf in chosen.items()}
    if c.allocation == "global":
        kept = masks.global_topk_masks(magnitudes, c.sparsity)
    else:
        by_name = _ALLOCATED[c.allocation](params, c.sparsity, prunable=c.prunable)
        kept = {name: masks.topk_mask(magnitudes[name], by_name[name]) for name in by_name}
    found = jax.tree.unflatten(
        jax.tree.structure(params), [kept.get(name) for name in tree.named_leaves(params)]
    )
    start = early() if not c.fresh or fresh is None else fresh()
    # With the modules beside the model, which no artifact has.
    start = {name: {**own, **start.get(name, {})} for name, own in variables.items()}
    start = {**start, "params": tree.apply_masks(found, start["params"])}
    return start, prune.hold_fixed(tx, found)


def account(state: TrainState, folder: epath.Path, abstract: PyTree) -> dict[str, Any]:
    """What was pruned, for the manifest; counted in the parameters as they are on disk.

    Args:
      state: after training; where it holds no masks nothing is read.
      folder: with its variables, see `save_variables`.
      abstract: shapes and dtypes of the variables.

    Raises:
      RuntimeError: a pruned weight is not zero on disk.
    """
    held = prune.find_masks(state.opt_state)
    if held is None:
        return {}
    restored = load_tree(folder / VARIABLES, abstract)["params"]
    leaves = tree.named_leaves(restored)
    for name, mask in tree.named_leaves(held).items():
        if np.any(np.asarray(leaves[name])[~np.asarray(mask)]):
            raise RuntimeError(f"{name}: a pruned weight is not zero on disk")
    return _counted(held, restored)


def carried(begun: Artifact, params: PyTree) -> dict[str, Any]:
    """The account of a pruned model whose parameters are otherwise now, for the manifest.

    Args:
      begun: the model.
      params: what has become of its parameters; those that are gone are left out.
    """
    masks = _zeros_of(begun, params)
    return {} if masks is None else _counted(masks, params)


def _counted(masks: PyTree, params: PyTree) -> dict[str, Any]:
    prunable = tree.size(masks)
    return {
        "masked": [*tree.named_leaves(masks)],
        "pruned": prunable - tree.nonzero(masks),
        "prunable": prunable,
        "zeros": tree.size(params) - tree.nonzero(params),
    }


def share(account: Mapping[str, Any]) -> float | None:
    """The sparsity that an account comes to."""
    return account["pruned"] / account["prunable"] if account else None
