"""A stage of the user's: what its functions are given, and what it leaves."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath
from jaxtyping import Array, Key

from kdjax import config, keys, teacher, tree
from kdjax.artifacts.artifact import CACHE, Artifact, save_variables
from kdjax.artifacts.model import Spec
from kdjax.config.own import explaining, shown
from kdjax.contexts.context import Context
from kdjax.data import Dataset
from kdjax.fitting import pruning
from kdjax.measuring import measure
from kdjax.teacher_targets.source import Source
from kdjax.types import BadInput, Variables


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that a stage has left.

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}`, as the stage left them; in a check their shapes.
      predict: `(variables, raw inputs by name) -> answers`, in evaluation; compiled.
    """

    variables: Variables
    predict: Callable[[Variables, Mapping[str, Any]], Array]


class Given:
    """What a stage of the user's is given.

    In a check nothing has run: models have shapes in the place of arrays, there is no folder to write
    to, and neither caches nor files.

    Attributes:
      name: of the stage.
      seed: that it is run for.
      reads: names of the stages that it may read, as in the config.
      left: what the manifest says of the model that has been left, empty where none has.
    """

    def __init__(self, context: Context, stage: config.OwnStage):
        self._context, self._stage = context, stage
        self.name, self.seed, self.reads = context.name, context.seed, stage.reads
        self.left: Mapping[str, Any] = {}

    @property
    def folder(self) -> epath.Path:
        """Of the stage, empty as it begins: what is written there is listed in the manifest."""
        self._refuse_ahead("folder")
        return self._context.folder

    @property
    def key(self) -> Key[Array, ""]:
        """Of this stage and seed."""
        return keys.stream(self._context.key, self.name)

    @property
    def train(self) -> Dataset:
        """All training examples, with the labels that may be used; the others are negative."""
        return self._context.splits.partly_labelled(self.seed)

    @property
    def test(self) -> Dataset:
        """What models are measured on."""
        return self._context.splits.test

    def model(self, name: str) -> Model:
        """The model that a stage has left.

        Raises:
          BadInput: it is not among what this one reads, or has left no whole model.
        """
        artifact, spec = self._artifact(name), self._spec(name)
        expected = spec.abstract()
        variables = expected if self._context.ahead else artifact.variables(expected)
        return Model(variables, spec.compiled(fast=self._context.parallel.fast))

    def cache(self, name: str) -> teacher.TeacherCache:
        """What teachers said of every view of every training example, see `kdjax.teacher`.

        Raises:
          BadInput: it is not among what this one reads, or is no cache of these teachers and examples.
        """
        self._refuse_ahead("cache")
        context, folder = self._context, self._artifact(name).folder
        stage = context.run.stages[name]
        if not isinstance(stage, config.Cache):
            raise BadInput(f"{context.path}.reads", f"{name} is not a stage of kind cache")
        source = Source.of(
            context.run,
            name,
            seed=stage.seed_of(self.seed),
            inputs=context.inputs,
            dataset=context.splits.train,
        )
        return teacher.TeacherCache.open(folder / CACHE, expected=source.binding(), owner=folder)

    def files(self, name: str) -> epath.Path:
        """The folder of a stage, to read what it has left there."""
        self._refuse_ahead("files")
        return self._artifact(name).folder

    def said(self, name: str) -> Mapping[str, Any]:
        """The manifest of a stage; of a stage of the user's, `own` has what its function gave."""
        return self._artifact(name).manifest

    def leave(self, variables: Variables) -> None:
        """Leaves a model, built as that of the stage that `leaves` names, and measures it.

        Later stages may name this one as they name that one, and it has a row in the report.

        Args:
          variables: of the same names, shapes and dtypes.

        Raises:
          BadInput: they are others, the config has no `leaves`, or a model has been left before.
        """
        self._refuse_ahead("leave")
        context, path = self._context, self._context.path
        if (like := self._stage.leaves) is None:
            raise BadInput(
                f"{path}.leaves", "missing, and a model is left", "name the stage it is like"
            )
        if self.left:
            raise BadInput(
                f"{path}.function", "it leaves a second model", "give that a stage of its own"
            )
        spec, variables = self._spec(like), jax.tree.map(jax.numpy.asarray, variables)
        if fault := _unlike(spec.abstract(), variables):
            raise BadInput(f"{path}.function", f"the model it leaves is not like {like}'s: {fault}")
        pruned = pruning.carried(self._artifact(like), variables["params"])
        mark = save_variables(context.folder, variables, alone=True)
        row = measure.live_row(
            context, spec, variables, folder=context.folder, sparsity=pruning.share(pruned)
        )
        self.left = {
            "variables": mark,
            "model": spec.plain(),
            **pruned,
            "rows": [dataclasses.asdict(row)],
        }

    def _artifact(self, name: str) -> Artifact:
        if name not in self.reads:
            path = self._context.path
            raise BadInput(
                f"{path}.reads", f"{name} is not among {list(self.reads)}", "name it there"
            )
        return self._context.inputs[name]

    def _spec(self, name: str) -> Spec:
        return Spec.of(self._artifact(name), field=f"{self._context.path}.reads")

    def _refuse_ahead(self, what: str) -> None:
        if self._context.ahead:
            raise BadInput(
                f"{self._context.path}.function",
                f"given.{what} in check, before anything has run",
                "use it in run",
            )


def _unlike(expected: Any, found: Any) -> str | None:
    """The first array that is missing, too much, or of another shape or dtype."""
    wanted, given = tree.named_leaves(expected), tree.named_leaves(found)
    for name in [*wanted, *given]:
        if name not in given:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is not in it"
        said, is_ = (f"{x.dtype} {list(x.shape)}" for x in (wanted[name], given[name]))
        if said != is_:
            return f"{name} is {is_}, and there {said}"
    return None


def check(context: Context, c: config.OwnStage) -> Mapping[str, Any]:
    """Asks the user's check; gives what the manifest will say of the model.

    Raises:
      BadInput: the check fails, or there is no model such as the one that is to be left.
    """
    _, check = c.made_stage(context.path)
    said: dict[str, Any] = {}
    if c.leaves is not None:
        artifact = context.inputs[c.leaves]
        said = {"model": Spec.of(artifact, field=f"{context.path}.leaves").plain()}
        said |= {name: artifact.manifest[name] for name in ("masked",) if name in artifact.manifest}
    if check is not None:
        check(Given(context, c))
    return said


def run(context: Context, c: config.OwnStage) -> Mapping[str, Any]:
    """Runs the user's function in an empty folder; gives what it gave, and what it left.

    Raises:
      BadInput: it fails, gives what is no JSON, or leaves no model where it was to leave one.
    """
    for path in context.folder.iterdir():  # of a run that was killed
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    given = Given(context, c)
    with explaining((c, context.path)):
        said = c.made_stage(context.path)[0](given)
    at, what = f"{context.path}.function", c.function
    if said is not None and not isinstance(said, Mapping):
        raise BadInput(
            at, f"{what} gave {shown(said)}", "it is to give what the manifest says, or nothing"
        )
    try:
        plain = json.loads(json.dumps(dict(said or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BadInput(at, f"{what} gave what is no JSON: {error}") from None
    if c.leaves is not None and not given.left:
        raise BadInput(
            at, f"{what} left no model, and the config has leaves={c.leaves!r}", "call given.leave"
        )
    return {"own": plain, **given.left}
