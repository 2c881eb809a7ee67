"""A model or an encoder as its artifact describes it: built, restored, run on raw examples."""

import abc
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float

from kdjax import config, evaluate, models, parse, quant, shrink, tasks
from kdjax.artifacts.artifact import Artifact
from kdjax.files import from_json
from kdjax.inputs import Inputs
from kdjax.models import Compute
from kdjax.types import BadInput, PyTree, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnEncoder(abc.ABC):
    """An encoder with something on top of it.

    Attributes:
      encoder: the architecture.
      inputs: that it is given.
      widths: of the layers that have been shrunk, see `kdjax.shrink`; empty where none has.
    """

    encoder: config.Encoder
    inputs: Inputs
    widths: Mapping[str, Mapping[str, int | tuple[int, ...]]] = dataclasses.field(
        default_factory=dict
    )

    def bare(self, compute: Compute = Compute()) -> nn.Module:
        """The encoder alone, at the widths of its architecture."""
        return self.encoder.given(self.inputs).module(compute)

    @abc.abstractmethod
    def written(self, compute: Compute = Compute()) -> nn.Module:
        """The linen module at the widths of its architecture."""

    def module(self, compute: Compute = Compute()) -> nn.Module:
        """The linen module."""
        module = self.written(compute)
        return shrink.Narrowed(module, self.widths) if self.widths else module

    @abc.abstractmethod
    def output(self) -> str:
        """What it gives that a later stage needs, by name."""

    def analysed(self) -> shrink.Model:
        """The model as `kdjax.shrink` looks at it: in evaluation, its one output."""
        name = self.output()
        return shrink.Model(self.module(), lambda outputs: outputs[name], {"train": False})

    def plain(self) -> dict[str, Any]:
        """For the manifest; where published weights were read from is no part of what a model is."""
        return parse.plain(self, fingerprint=True)

    def text(self) -> str:
        """What describes it: equal texts, equal models."""
        return json.dumps(self.plain(), sort_keys=True)

    @classmethod
    def described(cls, text: str) -> Any:
        """Of a `text`."""
        return parse.parse(cls, from_json(text), "model")

    def init(self, key: jax.Array) -> Variables:
        """Fresh variables; also of a key that is traced."""

        def init(key: jax.Array) -> Variables:
            return self.module().init(key, self.blank(), train=True)

        if isinstance(key, jax.core.Tracer) or jax.default_backend() != "cpu":
            return jax.jit(init)(key)
        # LLVM's third level takes three times as long as its second to unroll the loops that draw the
        # bits of each kernel, and gives the same numbers.
        return jax.jit(init, compiler_options={"xla_backend_optimization_level": 2})(key)

    def abstract(self) -> PyTree:
        """Shapes and dtypes of the variables; found once for all of one description."""
        found = _abstract(type(self), self.text())
        return jax.tree.map(lambda leaf: leaf, found)  # whose dicts are the caller's own

    def blank(self) -> dict[str, Array]:
        """A batch of one example as the model is given it."""
        return self.inputs.blank()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec(_OnEncoder):
    """All that is needed to rebuild a model with its head, as data in its manifest.

    Attributes:
      task: that it is asked.
      rules: of the layers that are quantized, by the names of their parameters; empty where none is.
        A quantized model has its BatchNorm folded.
    """

    task: tasks.Task
    rules: Mapping[str, quant.Rule] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, artifact: Artifact, *, field: str) -> "Spec":
        """The model that a stage left.

        Raises:
          BadInput: it left none; the line names `field`, which asked for it.
        """
        if "sweep" in artifact.manifest:
            raise BadInput(
                field,
                f"{artifact.manifest['stage']} is a sweep of several students",
                "give the values of the one that is wanted to a stage of its own",
            )
        if "model" not in artifact.manifest:
            raise BadInput(
                field,
                f"{artifact.manifest['stage']} has no head",
                "name a stage that leaves a whole model",
            )
        return parse.parse(cls, artifact.manifest["model"], f"{artifact.folder}: model")

    @property
    def name(self) -> str:
        """What the report calls it."""
        kinds = dict.fromkeys(rule.weights for rule in self.rules.values())
        said = [self.encoder.title, "shrunk" if self.widths else "", "/".join(kinds)]
        return " ".join(filter(None, said))

    def module(self, compute: Compute = Compute()) -> nn.Module:
        """The linen module, or what rounds in it."""
        if not self.rules:
            return super().module(compute)
        folded = dataclasses.replace(compute, folded=True)
        return quant.Quantized(self.in_float.module(folded), self.rules)

    @property
    def in_float(self) -> "Spec":
        """The classifier that this one rounds; its variables are these without the ranges."""
        return dataclasses.replace(self, rules={})

    def analysed(self) -> shrink.Model:
        """See above.

        Raises:
          BadInput: it is quantized.
        """
        if self.rules:
            raise BadInput(
                "",
                f"{self.name}: a quantized model is not shrunk any more",
                "shrink it, then quantize it",
            )
        return super().analysed()

    def layers(self) -> quant.Graph:
        """Of the float model, its BatchNorm folded: what can be quantized."""
        module = self.in_float.module(Compute(folded=True))
        folded = jax.eval_shape(self.in_float.folded, self.in_float.abstract())
        return quant.graph_of(self.answers(module), folded, self.blank())

    def written(self, compute: Compute = Compute()) -> nn.Module:
        """The linen module at the widths of its architecture."""
        return self.task.head(self.bare(compute))

    def output(self) -> str:
        """The answer to its task."""
        return self.task.output

    def answers(self, module: nn.Module) -> Callable[[Variables, Any], Float[Array, "batch ..."]]:
        """`(variables, inputs as the model is given them) -> output` of a module of this model.

        Statistics are frozen.
        """

        def answer(variables: Variables, inputs: Any) -> Array:
            outputs: Any = module.apply(variables, inputs, train=False)
            return outputs[self.task.output]

        return answer

    def predict(
        self, variables: Variables, batch: Mapping[str, Array | np.ndarray]
    ) -> Float[Array, "batch ..."]:
        """What of the output for raw examples is judged, with frozen statistics: all of it, as a rule.

        See `kdjax.tasks.Task.judged`.
        """
        answers = self.answers(self.module())(variables, self.inputs.see_all(batch))
        return self.task.judged(answers, batch)

    def compiled(self, *, fast: bool) -> Callable[..., Float[Array, "batch ..."]]:
        """`predict`, compiled: traced and compiled once for all models of one description.

        Args:
          fast: with convolutions in the order of sums that is fast on a CPU: `train.Parallel.fast`. Not
            of a quantized model, which rounds what other sums would put on the other side.
        """
        return _compiled(self.text(), fast and not self.rules)

    @property
    def positions(self) -> int | None:
        """That it answers at, of the longest example; None where it answers once."""
        at_positions = len(self.task.features) > len(tasks.Task.features)
        return _positions(self.text()) if at_positions else None

    def flops(self) -> int:
        """Of `predict` for one example, see `evaluate.flops`; counted once for all of one description."""
        return _flops(self.text())

    def folded(self, variables: Variables) -> Variables:
        """The variables with every BatchNorm folded, as those of a quantized classifier are."""
        if self.rules:
            return variables
        return models.fold(self.module(), variables, self.blank(), train=False)

    def deployed(self, variables: Variables) -> Callable[..., Array]:
        """`*raw arrays -> output` with the parameters inside and BatchNorm folded, to export.

        The arrays are those of `inputs.fields`, in their order.
        """
        folded = self.folded(variables)
        answer = self.answers(self.module(Compute(folded=True)))
        return self.raw(lambda inputs: answer(folded, inputs))

    def raw(self, function: Callable[[Any], Array]) -> Callable[..., Array]:
        """`*raw arrays -> function(inputs as the model is given them)`, as a file takes them."""
        names = tuple(self.inputs.fields)
        return lambda *arrays: function(self.inputs.see_all(dict(zip(names, arrays, strict=True))))


@functools.lru_cache(maxsize=64)
def _compiled(text: str, fast: bool) -> Callable[..., Array]:
    """`Spec.predict` of what the text describes: whoever asks with the same text shares the programs."""
    predict = Spec.described(text).predict
    return jax.jit(models.with_fast_convolutions(predict) if fast else predict)


@functools.lru_cache(maxsize=256)
def _abstract(kind: type[_OnEncoder], text: str) -> PyTree:
    spec = kind.described(text)
    found = jax.eval_shape(lambda: spec.module().init(jax.random.key(0), spec.blank(), train=True))
    if not isinstance(spec, Spec) or not spec.rules:
        return found
    if not isinstance(spec.bare(Compute(folded=True)), models.Folded):
        return found
    # Its layers have no biases until their norms are folded into them.
    return {**found, **jax.eval_shape(spec.in_float.folded, spec.in_float.abstract())}


@functools.lru_cache(maxsize=256)
def _flops(text: str) -> int:
    spec = Spec.described(text)
    example = {name: field.batch(1) for name, field in spec.inputs.fields.items()}
    return evaluate.flops(spec.predict, spec.abstract(), example)


@functools.lru_cache(maxsize=256)
def _positions(text: str) -> int:
    spec = Spec.described(text)
    return jax.eval_shape(spec.answers(spec.module()), spec.abstract(), spec.blank()).shape[1]


def load(artifact: Artifact, *, field: str) -> tuple[Spec, Variables]:
    """The model that a stage left, strictly restored; `field` asked for it."""
    spec = Spec.of(artifact, field=field)
    return spec, artifact.variables(spec.abstract())


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSpec(_OnEncoder):
    """An encoder and the projector that it was trained with, as data in its manifest.

    Attributes:
      projector: widths of the layers on top of it, empty where there are none.
    """

    projector: tuple[int, ...]

    def written(self, compute: Compute = Compute()) -> models.EncoderProjector:
        """The linen module at the widths of its architecture."""
        projector = models.Projector(self.projector, compute=compute)
        return models.EncoderProjector(self.bare(compute), projector)

    def output(self) -> str:
        """The projections, which are the features where there is no projector."""
        return "projections"

    def embed(self, variables: Variables, inputs: Any) -> Float[Array, "batch dim"]:
        """Features of inputs as the model is given them; variables as of `encoder_of`.

        Statistics are frozen.
        """
        module = dataclasses.replace(self, projector=()).module()
        wrapped = {name: {"encoder": part} for name, part in variables.items()}
        found: Any = module.apply(wrapped, inputs, train=False)
        return found["features"]

    @property
    def features(self) -> int:
        """Width of what the encoder gives."""
        return self._width("features")

    @property
    def projections(self) -> int:
        """Width of what the projector gives, the features' where there is none."""
        return self._width("projections")

    def _width(self, name: str) -> int:
        found: Any = jax.eval_shape(
            lambda: self.module().init_with_output(jax.random.key(0), self.blank(), train=False)[0]
        )
        return found[name].shape[-1]


def inputs_of(artifact: Artifact) -> Inputs | None:
    """What the model is given that a stage left; None where it left none."""
    said = artifact.manifest
    plain = said.get("model") or said.get("encoder_model") or said.get("sweep", {}).get("model")
    if plain is None:
        return None
    return parse.parse(Inputs, plain["inputs"], f"{artifact.folder}: inputs")


def encoder_of(
    artifact: Artifact, *, field: str
) -> tuple[EncoderSpec, Callable[[], dict[str, PyTree]]]:
    """The encoder of any stage that left one, and what reads its variables, those on top left out.

    Raises:
      BadInput: it left none; the line names `field`, which asked for it.
    """
    plain = artifact.manifest.get("encoder_model")
    if plain is not None:
        found = parse.parse(EncoderSpec, plain, f"{artifact.folder}: encoder_model")
        return found, lambda: _encoder_part(artifact.variables(found.abstract()))
    spec = Spec.of(artifact, field=field)
    if spec.rules:
        raise BadInput(
            field,
            f"{artifact.manifest['stage']} is quantized",
            "give the float model it is made of",
        )
    found = EncoderSpec(
        encoder=spec.encoder,
        projector=(),
        inputs=spec.inputs,
        widths={path: w for path, w in spec.widths.items() if path.startswith("encoder/")},
    )
    return found, lambda: _encoder_part(artifact.variables(spec.abstract()))


def _encoder_part(variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
    return {name: tree["encoder"] for name, tree in variables.items() if "encoder" in tree}


def with_encoder(variables: Variables, encoder: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """`variables` with the encoder's part of each collection put in its place."""
    return {
        name: {**tree, "encoder": encoder[name]} if "encoder" in tree else tree
        for name, tree in variables.items()
    }
