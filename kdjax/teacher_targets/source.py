"""What a cache is made of: teachers, views, examples. The same for whoever writes it and reads it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from kdjax import config, fingerprint, keys, models, parse, tasks, teacher, views
from kdjax.artifacts.artifact import Artifact
from kdjax.artifacts.model import Spec, encoder_of
from kdjax.config.mixes import Both
from kdjax.contexts import build
from kdjax.data import Dataset, Partners
from kdjax.inputs import Inputs
from kdjax.types import BadInput, Batch, PyTree, Variables, under
from kdjax.views import draws

_SAMPLES = 32
"""Examples whose inputs and whose views are part of what a cache is bound to."""


See = Callable[[Batch, Key[Array, ""]], tuple[dict[str, Array], Array | None]]
"""`(batch, key of the run) -> (views, own weight of each where it is mixed)`: a batch has `inputs`,
`id` and `view`, and with mixing `partner_inputs` and `partner_id`."""


def see(recipe: draws.Recipe, stream: str, *, mix: Both | None = None) -> See:
    """Draws view `batch["view"]` of each example, mixed with that of its partner if asked to.

    Args:
      recipe: `(key, raw example) -> view`.
      stream: of the views: the name of the cache.
      mix: see `kdjax.views.batch_mixed`.
    """

    def draw(batch: Batch, key: Key[Array, ""]):
        stream_key, number = keys.stream(key, stream), batch["view"]
        own = views.batch_views(recipe, stream_key, number, batch["id"], batch["inputs"])
        if mix is None:
            return own, None
        id, raw = batch["partner_id"], batch["partner_inputs"]
        partner = views.batch_views(recipe, stream_key, number, id, raw)
        return views.batch_mixed(mix, stream_key, number, batch["id"], own, partner)

    return draw


class Said(NamedTuple):
    """What a model says of a batch.

    Attributes:
      answer: its output, [batch, ...].
      mask: where it answers at positions, those that are no padding, the first ones of each example:
        bool [batch, positions]; None for all.
      hidden: those that the view hides; None where it says none.
    """

    answer: Float[Array, "batch ..."]
    mask: Bool[Array, "batch positions"] | None = None
    hidden: Bool[Array, "batch positions"] | None = None

    @classmethod
    def of(cls, outputs: Any, name: str) -> "Said":
        """Of all outputs of a head, by the name of its answer."""
        return cls(outputs[name], outputs.get("mask"))

    @property
    def length(self) -> Int[Array, " batch"] | None:
        """How many positions count."""
        return None if self.mask is None else self.mask.sum(-1)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """One model that is asked.

    Attributes:
      described: as data, for the manifest.
      inputs: that it is given.
      task: that it answers, None where its features are asked for.
      outputs: how many numbers it says: its classes, or the width of its features.
      positions: that it answers at, of the longest example; None where it answers once.
      say: `(variables, inputs) -> Said`, with frozen statistics.
      read: gives the variables of the model: a student of a cache never needs them.
      module: of the model.
      abstract: gives the shapes and dtypes of its variables.
      quantized: it rounds, and has no modules to look into.
    """

    described: Mapping[str, Any]
    inputs: Inputs
    task: tasks.Task | None
    outputs: int
    positions: int | None
    say: Callable[[Variables, Any], Said]
    read: Callable[[], Variables]
    module: nn.Module
    abstract: Callable[[], PyTree]
    quantized: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Everything that a cache is made of.

    Attributes:
      c: the cache's config.
      name: of its stage, which is the stream of its views.
      seed: of the run.
      dataset: all training examples.
      teachers: that are asked, in the order of the config.
    """

    c: config.Cache
    name: str
    seed: int
    dataset: Dataset
    teachers: tuple[Teacher, ...]

    @classmethod
    def of(
        cls,
        run: config.Run,
        name: str,
        *,
        seed: int,
        inputs: Mapping[str, Artifact],
        dataset: Dataset,
    ) -> "Source":
        """What the cache stage `name` of a run is made of, `inputs` being its teachers at least.

        Raises:
          BadInput: a teacher cannot be asked, or they cannot be asked together.
        """
        c, path = run.stages[name], f"config.stages.{name}"
        assert isinstance(c, config.Cache)
        found = tuple(_teacher(c, inputs[t], path=path) for t in c.teachers)
        if len({t.outputs for t in found}) > 1:
            shown = ", ".join(f"{n} {t.outputs}" for n, t in zip(c.teachers, found, strict=True))
            raise BadInput(f"{path}.teacher", f"they say different numbers of things: {shown}")
        if len({t.task for t in found}) > 1:
            raise BadInput(
                f"{path}.teacher", "they are not asked the same", "give teachers of one task"
            )
        if len({t.positions for t in found}) > 1:
            shown = ", ".join(f"{n} {t.positions}" for n, t in zip(c.teachers, found, strict=True))
            raise BadInput(f"{path}.teacher", f"they answer at different positions: {shown}")
        source = cls(c=c, name=name, seed=seed, dataset=dataset, teachers=found)
        with under(path):
            signal = source.signal
        with under(f"{path}.signal"):
            teacher.check(signal)
        return source

    @property
    def inputs(self) -> Inputs:
        """What the recipe's pixels are meant for: the first teacher's."""
        return self.teachers[0].inputs

    @property
    def of_features(self) -> bool:
        """Whether the features of encoders are kept, and not the answers of models."""
        return self.c.of_features

    @functools.cached_property
    def signal(self) -> teacher.Vector | teacher.Apart | teacher.Positions:
        """What is kept."""
        asked = self.teachers[0]
        return build.signal(self.c, task=asked.task, width=asked.outputs, positions=asked.positions)

    @functools.cached_property
    def variables(self) -> tuple[Variables, ...]:
        """Of all teachers, read when they are first asked for."""
        return tuple(t.read() for t in self.teachers)

    @functools.cached_property
    def _partners(self) -> Partners:
        return Partners(self.dataset.ids, seed=self.seed, stream=keys.stream_id(self.name))

    @property
    def partner_rows(self) -> Callable[..., Int[np.ndarray, " b"]] | None:
        """`(rows, epochs) -> rows` of the examples that these are mixed with, None without mixing."""
        if self.c.mix is None:
            return None
        return lambda rows, epochs: self._partners.rows(rows, epochs % np.uint32(self.c.views))

    def read(
        self, rows: Int[np.ndarray, " b"], numbers: UInt32[np.ndarray, " b"]
    ) -> dict[str, Any]:
        """Raw inputs and ids on the host, with their partners': what a view is drawn from."""
        batch = {
            "id": self.dataset.ids[rows],
            "inputs": self.dataset.read(rows),
            "view": numbers,
        }
        if self.partner_rows is None:
            return batch
        partners = self.partner_rows(rows, numbers)
        return {
            **batch,
            "partner_id": self.dataset.ids[partners],
            "partner_inputs": self.dataset.read(partners),
        }

    def view(self, inputs: Inputs) -> "See":
        """How a view is drawn for a model that is given these inputs."""
        return see(
            self.c.recipe.recipe_for(inputs, meant_for=self.inputs, examples=self.dataset),
            self.name,
            mix=None if self.c.mix is None else self.c.mix.both(inputs),
        )

    def say(self, variables: tuple[Variables, ...], batch: Batch, key: Key[Array, ""]) -> Said:
        """What the teachers say of the views: [batch, ...], or [batch, teachers, ...].

        The mean of several is that of their task: of classes, the logarithm of the mean of their
        probabilities. Of positions, those count that all of them have.
        """
        ways = dict.fromkeys(t.inputs for t in self.teachers)
        seen = {inputs: self._given(inputs, batch, key) for inputs in ways}
        said = [t.say(v, seen[t.inputs][0]) for t, v in zip(self.teachers, variables, strict=True)]
        hidden = seen[self.inputs][1].get(draws.HIDDEN)
        if len(said) == 1:
            return said[0]._replace(hidden=hidden)
        each = jnp.stack([one.answer for one in said], axis=1)
        masks = [one.mask for one in said if one.mask is not None]
        mask = jnp.stack(masks).all(0) if masks else None
        task = self.teachers[0].task
        if self.c.together == "apart" or task is None:
            return Said(each, mask, hidden)
        weights = weights_of(self.c, self.c.weights, f"config.stages.{self.name}.weights")
        return Said(task.together(each, weights), mask, hidden)

    def _given(
        self, inputs: Inputs, batch: Batch, key: Key[Array, ""]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """A view as a model of these inputs is given it, and what it has beside that."""
        return draws.apart(self.view(inputs)(batch, key)[0])

    def ask(
        self, variables: tuple[Variables, ...], batch: Batch, key: Key[Array, ""]
    ) -> dict[str, Array]:
        """What is kept of what the teachers say, by part of the signal."""
        return self._kept(self.say(variables, batch, key))

    def difference(self, stored: Mapping[str, Array], said: Said) -> Float[Array, " batch"]:
        """How far what is stored is from what the teachers say, the largest of each example."""
        if isinstance(self.signal, teacher.Positions):
            return self.signal.difference(stored, said.answer, said.hidden)
        return self.signal.difference(stored, said.answer)

    def _kept(self, said: Said) -> dict[str, Array]:
        if isinstance(self.signal, teacher.Positions):
            return self.signal.encode(said.answer, said.length, said.hidden)
        return self.signal.encode(said.answer)

    def ask_within(
        self,
        variables: tuple[Variables, ...],
        batch: Batch,
        key: Key[Array, ""],
        *,
        paths: Sequence[str],
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """As `ask`, of one model, and what its modules at these paths give of the views."""
        (asked,) = self.teachers
        assert asked.task is not None
        inputs, beside = self._given(asked.inputs, batch, key)
        seen = models.capture(asked.module, variables[0], inputs, paths=paths, train=False)
        said = Said.of(seen.outputs, asked.task.output)
        return self._kept(said._replace(hidden=beside.get(draws.HIDDEN))), seen.features

    def binding(self) -> dict[str, Any]:
        """All of it as plain data: a cache is bound to this, and a reader expects exactly this."""
        n = len(self.dataset)
        draws = np.random.Philox(key=[self.seed, keys.stream_id(self.name) << 32]).random_raw(n)
        rows = np.sort(np.argsort(draws, kind="stable")[:_SAMPLES])
        numbers = (np.arange(len(rows)) % self.c.views).astype(np.uint32)
        batch = self.read(rows, numbers)
        seen = jax.jit(self.view(self.inputs))(batch, jax.random.key(self.seed))
        return {
            "teachers": [dict(t.described) for t in self.teachers],
            "together": self.c.together,
            "weights": parse.plain(self.c.weights),
            "signal": teacher.describe(self.signal),
            "recipe": parse.plain(self.c.recipe),
            "recipes_version": views.RECIPES_VERSION,
            "mix": parse.plain(self.c.mix),
            "preprocessing": [parse.plain(t.inputs) for t in self.teachers],
            "seen": fingerprint.of_arrays(seen),
            "dataset": {
                "name": self.dataset.name,
                "examples": n,
                "ids": fingerprint.of_arrays({"id": self.dataset.ids}),
                "samples": fingerprint.of_arrays(batch["inputs"]),
            },
            "stream": self.name,
            "seed": self.seed,
            "views": self.c.views,
            "backend": jax.default_backend(),
            "jax": jax.__version__,
        }


def weights_of(
    c: config.Cache, weights: tuple[float, ...] | None, field: str
) -> Float[Array, " teachers"]:
    """The teachers' weights, which add up to one; equal by default.

    Raises:
      BadInput: there is not one positive weight a teacher.
    """
    n = len(c.teachers)
    if weights is None:
        weights = (1.0,) * n
    if len(weights) != n or min(weights) <= 0:
        raise BadInput(field, f"give one positive weight for each of the {n} teachers")
    total = sum(weights)
    return jnp.asarray([weight / total for weight in weights], jnp.float32)


def _teacher(c: config.Cache, artifact: Artifact, *, path: str) -> Teacher:
    field = f"{path}.teacher"
    described = {
        "stage": artifact.manifest["stage"],
        "variables": artifact.manifest.get("variables"),
    }
    if c.of_features:
        spec, read = encoder_of(artifact, field=field)
        with under(path):
            inputs = spec.inputs.sized(c.recipe.size)
        said = {
            **described,
            "encoder": parse.plain(spec.encoder),
            "widths": parse.plain(spec.widths),
        }
        bare = dataclasses.replace(spec, projector=())
        return Teacher(
            said,
            inputs,
            None,
            spec.features,
            None,
            lambda variables, inputs: Said(spec.embed(variables, inputs)),
            read,
            bare.module(),
            bare.abstract,
            quantized=False,
        )
    spec = Spec.of(artifact, field=field)
    module = spec.module()
    with under(path):
        inputs = spec.inputs.sized(c.recipe.size)
    return Teacher(
        {**described, "model": spec.plain()},
        inputs,
        spec.task,
        spec.task.outputs,
        dataclasses.replace(spec, inputs=inputs).positions,
        lambda variables, inputs: Said.of(
            module.apply(variables, inputs, train=False), spec.task.output
        ),
        lambda: artifact.variables(spec.abstract()),
        module,
        spec.abstract,
        quantized=bool(spec.rules),
    )
