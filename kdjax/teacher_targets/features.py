"""The terms of a student's loss that compare its features with its teacher's."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from kdjax import config, keys, losses, models, train, tree
from kdjax.artifacts.model import Spec
from kdjax.contexts.context import Context
from kdjax.distill import Comparison, Taps
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.teacher_targets.source import Source
from kdjax.teacher_targets.targets import TeacherTargets, taught_views
from kdjax.types import BadInput, Batch, PyTree, Variables, under

_PART = "teacher_features/"
"""Before the path of a module: what it gives, in a batch."""

_INDEX, _NEGATIVES = "index", "negatives/"
"""The place of an example among all, and before the name of a term those of others, in a batch."""


class Term(NamedTuple):
    """One term, ready to be weighed.

    Attributes:
      name: in the config, and in the log.
      c: its config.
      weight: in the loss.
      shapes: of the student's features and of the teacher's.
      margins: of `ofd`, one for each tap.
      inputs: of the student, which say what of its features is padding.
    """

    name: str
    c: config.FeatureTerm
    weight: train.Number
    shapes: tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]]
    margins: tuple[Float[Array, " channel"], ...]
    inputs: Inputs

    @property
    def student(self) -> tuple[str, ...]:
        """Paths of what is tapped of the student."""
        return self.c.tapped(self.c.student)

    @property
    def teacher(self) -> tuple[str, ...]:
        """Paths of what is tapped of the teacher."""
        return self.c.tapped(self.c.teacher)

    def comparison(self, compute: Compute) -> Comparison:
        """How it compares them; its connectors compute as `compute` says."""
        return self.c.comparison(Taps(*self.shapes, compute, self.margins))

    def named(self, connectors: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
        """Its connectors, with the names that they have beside the student."""
        return [(f"{self.name}_{i}", module) for i, module in enumerate(connectors)]


def of_stage(
    context: Context, c: config.Distill, *, spec: Spec, source: Source
) -> tuple[Term, ...]:
    """The terms of a stage, fitted to its student and its teacher.

    Raises:
      BadInput: features are not to be had, or do not go together.
    """
    path = f"config.stages.{context.name}"
    if not c.features:
        return ()
    if len(source.teachers) != 1:
        raise BadInput(f"{path}.features", f"{c.cache} has several teachers", "give it one")
    if spec.rules or source.teachers[0].quantized:
        raise BadInput(
            f"{path}.features", "a quantized model is run without its modules", "take the float one"
        )
    found = []
    for name, one in c.features.items():
        with under(f"{path}.features.{name}"):
            found.append(_term(name, one, context, c, spec, source))
    return tuple(found)


def _term(
    name: str,
    c: config.FeatureTerm,
    context: Context,
    stage: config.Distill,
    spec: Spec,
    source: Source,
) -> Term:
    asked = source.teachers[0]
    mine, theirs = c.tapped(c.student), c.tapped(c.teacher)
    student = _shapes(spec.module(), spec.abstract(), mine, spec.inputs, "student")
    teacher = _shapes(asked.module, asked.abstract(), theirs, asked.inputs, "teacher")
    if c.drawn:
        if source.c.mix is not None:
            raise BadInput(
                "name", f"{c.name} has a memory of each example, and {stage.cache} mixes two"
            )
        if len(source.dataset) < 2:
            raise BadInput("negatives", "there is no other example")
    margins = ()
    if c.reads_norms:
        params = tree.named_leaves(source.variables[0]["params"])
        margins = tuple(_margin(params, path) for path in c.teacher)
    weight = config.over_steps(c.weight, steps=stage.steps)
    found = Term(name, c, weight, (student, teacher), margins, spec.inputs)
    if not context.exact:
        return found
    with under("", {"student_shape": "student"}):
        how = found.comparison(Compute())
    answers = spec.positions, asked.positions
    for side, paths, inputs, at in zip(
        ("student", "teacher"), (mine, theirs), (spec.inputs, asked.inputs), answers, strict=True
    ):
        shapes = student if side == "student" else teacher
        _check_padding(c.name, how, dict(zip(paths, shapes, strict=True)), inputs, side, at)
    return found


def _check_padding(
    name: str,
    how: Comparison,
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Inputs,
    side: str,
    answers: int | None,
) -> None:
    """Refuses features of positions of which it is not known which are padding, or not asked.

    It is known of those of an example, and of those that a model answers at (`answers`).
    """
    if not inputs.ragged:
        return
    most = inputs.ragged[0].shape[0] if len(inputs.ragged) == 1 else None
    most = most if answers is None else answers
    known = "as many as an example has" if answers is None else "at which the model answers"
    for path, shape in shapes.items():
        if len(shape) == 2:
            continue
        if how.at_positions is None:
            raise BadInput(
                side,
                f"{path} gives {list(shape)}, of which some is padding, and {name} compares all",
                "tap what has one row an example, such as encoder",
            )
        if shape[1] != most:
            raise BadInput(
                side,
                f"{path} gives {shape[1]} positions, and it is not known which of them are padding",
                f"tap modules that give {most}, {known}" if most else "",
            )


def _shapes(
    module: nn.Module,
    variables: PyTree,
    paths: Sequence[str],
    inputs: Inputs,
    side: str,
) -> tuple[tuple[int, ...], ...]:
    """Of what the modules at these paths give of one view."""

    def features(variables):
        seen = models.capture(module, variables, inputs.blank(), paths=paths, train=False)
        return seen.features

    with under(side, {"paths": ""}):
        found = jax.eval_shape(features, variables)
    for path in paths:
        if not isinstance(found[path], jax.ShapeDtypeStruct) or found[path].ndim < 2:
            raise BadInput(side, f"{path} does not give one array a view", "tap another module")
    return tuple(found[path].shape for path in paths)


def _margin(params: Mapping[str, Any], path: str) -> Float[Array, " channel"]:
    try:
        norm = (jnp.asarray(params[f"{path}/norm/{name}"]) for name in ("scale", "bias"))
        return losses.ofd_margin(*norm)
    except KeyError:
        raise BadInput(
            "teacher", f"{path} is not a convolution with its BatchNorm, which ofd reads", "tap one"
        ) from None


def beside(
    variables: Variables, terms: Sequence[Term], *, key: Key[Array, ""], examples: int
) -> Variables:
    """`variables` with what is learned for the terms beside them, and the memories."""
    modules: dict[str, Variables] = {}
    memory = {}
    for term in terms:
        term_key = keys.stream(key, term.name)
        shapes = ([jnp.zeros(shape) for shape in shapes] for shapes in term.shapes)
        how = term.comparison(Compute())
        given = how.given(*how.ready(*shapes))
        for i, (name, module) in enumerate(term.named(how.connectors)):
            init = jax.jit(functools.partial(module.init, train=True))
            modules[name] = init(jax.random.fold_in(term_key, i), given[i])
        memory_key = jax.random.fold_in(term_key, len(how.connectors))
        if (remembered := term.c.memory(memory_key, examples=examples)) is not None:
            memory[term.name] = remembered
    found = train.with_auxiliary(variables, modules)
    return {**found, train.MEMORY: memory} if memory else found


def forward(model: nn.Module, terms: Sequence[Term], axis_name: str | None):
    """The student's forward pass with its features: the losses of each term are outputs, too.

    What is learned for a term computes in float32, as losses do.
    """
    compute = Compute(axis_name=axis_name)
    paths = tuple(dict.fromkeys(path for term in terms for path in term.student))
    comparisons = [term.comparison(compute) for term in terms]

    def run(params, state, batch, key):
        own = {name: part for name, part in state.model_state.items() if name != train.MEMORY}
        seen = models.capture(
            model,
            {"params": params, **own},
            batch["inputs"],
            paths=paths,
            mutable=["batch_stats"],
            train=True,
            rngs={"dropout": key},
        )
        where = _where(terms[0].inputs, batch, seen.outputs)
        model_state = {**state.model_state, **seen.state}
        outputs = dict(seen.outputs)
        for term, how in zip(terms, comparisons, strict=True):
            student, teacher = how.ready(
                [seen.features[path] for path in term.student],
                [batch[_PART + path] for path in term.teacher],
            )
            connected = []
            for (name, module), x in zip(
                term.named(how.connectors), how.given(student, teacher), strict=True
            ):
                y, model_state = train.apply_auxiliary(
                    module, name, params, model_state, x, train=True
                )
                connected.append(y)
            if how.remembering is None:
                of_each = how.losses
                if how.at_positions is not None:
                    of_each = functools.partial(how.at_positions, where=where)
                with under(f"features.{term.name}"):
                    first, *others = of_each(connected, student, teacher)
                outputs[term.name] = sum(others, first)
            else:
                memory, negatives = model_state[train.MEMORY], batch[_NEGATIVES + term.name]
                outputs[term.name], remembered = how.remembering(
                    *connected, memory[term.name], batch[_INDEX], negatives
                )
                model_state[train.MEMORY] = {**memory, term.name: remembered}
        return outputs, model_state

    return run


def _where(
    inputs: Inputs, batch: Batch, outputs: Mapping[str, Array]
) -> Bool[Array, "batch position"] | None:
    """Positions that are no padding: those that both models answer at, or those of an example."""
    if "mask" not in outputs:
        return inputs.where(batch["inputs"])
    mask = outputs["mask"]
    if "teacher_length" not in batch:
        return mask
    places = jnp.expand_dims(jnp.arange(mask.shape[1]), 0)
    return mask & (places < batch["teacher_length"][:, None])


def weighed(terms: Sequence[Term]) -> dict[str, tuple[train.Number, train.Term]]:
    """For `train.weigh`, on what `forward` gives."""

    def of(name: str) -> train.Term:
        return lambda outputs, batch: outputs[name]

    return {term.name: (term.weight, of(term.name)) for term in terms}


def teach(taught: TeacherTargets, terms: Sequence[Term], *, stage: str) -> TeacherTargets:
    """The targets with what the terms need: the teacher is asked for its features, too.

    A contrastive term needs the place of each example among all, and others drawn for it: new ones in
    each epoch, which depend on the example alone.
    """
    source = taught.source
    paths = tuple(dict.fromkeys(path for term in terms for path in term.teacher))
    contrastive = [(term.name, term.c.drawn) for term in terms if term.c.drawn]

    def ask(variables, batch, key) -> dict[str, Array]:
        said, features = source.ask_within(variables, batch, key, paths=paths)
        return {**said, **{_PART + path: x for path, x in features.items()}}

    views = taught_views(
        source.view(taught.inputs),
        source.signal.parts(),
        count=source.c.views,
        ask=ask,
        seed=source.c.seed,
    )
    if not contrastive:
        return taught._replace(views=views)

    def draw(batch: Batch, resident: PyTree, key: Key[Array, ""]) -> Batch:
        found = {**views(batch, resident, key), _INDEX: batch[_INDEX]}
        for name, count in contrastive:
            stream_key = keys.stream(key, f"{stage}/{name}/negatives")
            others = functools.partial(
                negatives, stream_key, count=count, examples=len(source.dataset)
            )
            found[_NEGATIVES + name] = jax.vmap(others)(batch["epoch"], batch["id"], batch[_INDEX])
        return found

    return taught._replace(views=draw, join=lambda rows, epochs: {_INDEX: rows.astype(np.int32)})


def negatives(
    stream_key: Key[Array, ""],
    epoch: UInt32[Array, ""],
    id: UInt32[Array, ""],
    index: Int[Array, ""],
    *,
    count: int,
    examples: int,
) -> Int[Array, " count"]:
    """`count` examples other than the one at `index`, each as likely as the next, some perhaps twice."""
    drawn = jax.random.randint(keys.example(stream_key, epoch, id), (count,), 0, examples - 1)
    return drawn + (drawn >= index)
