"""What the rules of `kdjax compress` are about: found in the data, and measured on this machine."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from kdjax import config, evaluate, few_labels, models, parse, shrink, tasks, tree
from kdjax.artifacts.model import Spec
from kdjax.compress.rules import MULTIPLE, Pictures, Size, Speed
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.stages.export import as_timed
from kdjax.stages.shrink import MOST_UNITS
from kdjax.types import Variables

_TIMED = 16
"""Pictures of one call: enough that a call of a few is not what is timed."""


def pictures(train: Dataset, test: Dataset, *, classes: int, side: int) -> Pictures:
    """Of the two splits; the views follow from a sample of the training pictures, see `few_labels`.

    Args:
      train: with all labels that there are.
      test: likewise.
      classes: how many there are, or those of the network.
      side: the shorter side of most pictures, in pixels, as they are in their files.
    """
    n = min(len(train), few_labels.LOOKED_AT)
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:n])
    (images,) = train.read(rows).values()
    return Pictures(
        train=len(train),
        test=len(test),
        labelled=int(train.shown.sum()),
        classes=classes,
        side=side,
        look=few_labels.facts(images),
    )


class Machine(NamedTuple):
    """What was measured here.

    Attributes:
      speed: see there.
      memory: bytes that a step takes at most, of the network or of the student, without the pictures.
    """

    speed: Speed
    memory: int


def machine(network: Spec, student: Spec, *, batch: int, labelled: bool) -> Machine:
    """Times the programs in which most of the time goes, with made-up pictures.

    Args:
      network: that is asked.
      student: that is trained.
      batch: of its training.
      labelled: whether the network may be trained, too.
    """

    def ask(variables: Any, inputs: Mapping[str, Array]) -> Array:
        return network.answers(network.module())(variables, inputs)

    asked, asked_bytes = _timed(ask, _made_up(network), network.inputs.blank(_TIMED))
    tuned, tuned_bytes = _trained(network, _TIMED) if labelled else (0.0, 0)
    learned, learned_bytes = _trained(student, batch)
    held = 16 * (tree.size(student.abstract()["params"]) + tree.size(network.abstract()["params"]))
    return Machine(
        Speed(teacher=asked / _TIMED, teacher_step=tuned / _TIMED, student=learned / batch),
        held + max(asked_bytes, tuned_bytes * batch // _TIMED, learned_bytes),
    )


def _trained(spec: Spec, batch: int) -> tuple[float, int]:
    """Seconds and bytes of the gradient of a batch."""

    def learn(params: Any, rest: Any, inputs: Mapping[str, Array]) -> Any:
        def loss(params: Any) -> tuple[Array, Any]:
            outputs, state = spec.module().apply(
                {"params": params, **rest}, inputs, train=True, mutable=list(rest)
            )
            return (outputs[spec.task.output] ** 2).mean(), state

        return jax.grad(loss, has_aux=True)(params)

    return _timed(learn, *_split(_made_up(spec)), spec.inputs.blank(batch))


def _timed(function: Any, *arguments: Any) -> tuple[float, int]:
    """Seconds of a call, the median of a few, and the bytes that it needs for itself."""
    if jax.default_backend() == "cpu":  # as what is trained, and what asks a teacher, is compiled
        function = models.with_fast_convolutions(function)
    compiled = jax.jit(function).lower(*arguments).compile()
    taken = evaluate.latency(
        lambda: compiled(*arguments), warmup=1, repeats=5, min_seconds=0.0, max_seconds=10.0
    )
    needed = compiled.memory_analysis()
    return taken.ms_p50 / 1000, int(getattr(needed, "temp_size_in_bytes", 0))


def _made_up(spec: Spec) -> Any:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), spec.abstract())


def _split(variables: Mapping[str, Any]) -> tuple[Any, Any]:
    return variables["params"], {n: v for n, v in variables.items() if n != "params"}


def spec_of(
    encoder: Mapping[str, Any],
    dataset: Dataset,
    *,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Spec:
    """The model of an encoder's config for such pictures, seen in this size; without its weights."""
    made = parse.parse(config.Encoder, encoder)
    inputs = Inputs.of(dataset.fields, mean=mean, std=std).sized(size)
    return Spec(encoder=made.architecture, inputs=inputs, task=tasks.of(dataset))


def size_of(spec: Spec) -> Size:
    """What a student's int8 file is made of; its first layer and its last stay in float32."""
    leaves = tree.named_leaves(spec.abstract()["params"])
    kernels = {name: leaf for name, leaf in leaves.items() if name.endswith("/kernel")}
    edges = sum(leaf.size for name, leaf in kernels.items() if _is_edge(name))
    weights = sum(leaf.size for leaf in kernels.values())
    return Size(
        inner=weights - edges,
        edges=edges,
        others=tree.size(spec.abstract()["params"]) - weights,
        layers=len(kernels),
        channels=sum(leaf.shape[-1] for leaf in kernels.values()),
    )


def milliseconds(spec: Spec, variables: Variables | None = None) -> float:
    """Of one picture in the file of a model, in ONNX Runtime and one thread, the median.

    Args:
      spec: of the model.
      variables: fresh ones by default, which take as long.
    """
    inputs = {name: field.made_up(1) for name, field in spec.inputs.fields.items()}
    variables = spec.init(jax.random.key(0)) if variables is None else variables
    with as_timed(spec, variables, threads=1) as run:
        return evaluate.latency(lambda: run(inputs), max_seconds=1.0).ms_p50


def shrunk_most(spec: Spec) -> tuple[Spec, Variables]:
    """A fresh model without as many units as the stage `shrink` takes away at most."""
    model, variables = spec.analysed(), spec.init(jax.random.key(0))
    groups = shrink.groups_of(model, variables, spec.blank())
    scores = shrink.random(groups, jax.random.key(0))
    kept = shrink.keep_each(groups, scores, MOST_UNITS, multiple=MULTIPLE)
    found = shrink.take_away(model, groups, kept, variables, spec.blank())
    return dataclasses.replace(spec, widths=found.widths), found.variables


def batch_normalised(spec: Spec) -> str | None:
    """A pattern of the names of all that BatchNorms have as parameters; None where there is none."""
    variables = spec.abstract()
    kept = tree.named_leaves(variables.get("batch_stats", {}))
    modules = {name.rpartition("/")[0] for name in kept}
    names = [*tree.named_leaves(variables["params"])]
    own = {name for name in names if name.rpartition("/")[0] in modules}
    if not own:
        return None
    last = "|".join(sorted({re.escape(module.rpartition("/")[2]) for module in modules}))
    short = f".*/({last})/[^/]*" if "|" in last else f".*/{last}/[^/]*"
    if {name for name in names if re.fullmatch(short, name)} == own:
        return short
    return "|".join(sorted(map(re.escape, own)))  # others are called so, too


def _is_edge(name: str) -> bool:
    return "/stem/" in name or not name.startswith("encoder/")
