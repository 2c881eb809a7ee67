"""What a stage is given besides its own config."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Int, Key, Shaped

from kdjax import config, data, views
from kdjax.artifacts.artifact import Artifact, Expected
from kdjax.config import Labels
from kdjax.config.sources import Pictures
from kdjax.contexts import build
from kdjax.data import Dataset
from kdjax.inputs import Inputs
from kdjax.train import Parallel
from kdjax.types import BadInput, under


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run: read when first asked for, shared by all stages.

    Attributes:
      config: which.
      kept: what their records said at an earlier start; None to read them all.
      whole: the same examples by all integers, where these are said by those alone that occur in training
        examples, see `narrowed`.
    """

    config: config.Data
    kept: data.Kept | None = None
    whole: "Splits | None" = None

    def _read(self, field: str) -> Dataset:
        here = functools.partial(under, "config", {"data": f"data.{field}"})
        with here():
            dataset = build.dataset(
                self.config,
                getattr(self.config, field),
                kept=self.kept,
                tested=field == "test_split",
            )
            if self.whole is not None:
                with under("data.source"):
                    dataset = dataset.narrowed(self.whole.occurring).dataset

        def read(rows: Int[np.ndarray, " b"]) -> Mapping[str, np.ndarray]:
            with here():  # a record that is broken is read in the midst of a stage
                return dataset.read(rows)

        self._check_buckets(dataset)
        given = dataclasses.replace(dataset, read=read)
        return given.held() if self.is_resident(given) else given

    def _check_buckets(self, dataset: Dataset) -> None:
        for field, ends in self.config.buckets.items():
            own = dataset.fields.get(field)
            if own is None or not own.ragged:
                known = ", ".join(name for name, f in dataset.fields.items() if f.ragged)
                raise BadInput(
                    f"config.data.buckets.{field}",
                    f"examples of {dataset.name} do not differ in length there",
                    f"they do in {known or 'no field'}",
                )
            if ends[-1] >= own.shape[0]:
                raise BadInput(
                    f"config.data.buckets.{field}",
                    f"{ends[-1]} is no less than the longest that there may be, {own.shape[0]}, which "
                    "is a bucket by itself",
                    "leave it out",
                )

    @functools.cached_property
    def buckets(self) -> Mapping[str, tuple[int, ...]]:
        """Lengths to which batches are padded, by ragged field, the longest that there may be last."""
        return self._buckets(self.train)

    def _buckets(self, dataset: Dataset) -> dict[str, tuple[int, ...]]:
        found = {}
        for field, ends in self.config.buckets.items():
            most = dataset.fields[field].shape[0]
            found[field] = (*(end for end in ends if end < most), most)
        return found

    def widths(self, dataset: Dataset) -> data.Widths | None:
        """To how many positions examples are padded that are asked together; None for the most."""
        if not self.config.buckets:
            return None
        return data.Widths(dataset.lengths, self._buckets(dataset))

    @functools.cached_property
    def occurring(self) -> Mapping[str, np.ndarray]:
        """The integers that occur in training examples, by field; see `Dataset.occurring`."""
        return self.train.occurring()

    @functools.cached_property
    def narrowed(self) -> "Splits":
        """The same examples, said by what occurs in training examples: texts by a smaller tokenizer.

        A fault of what has no such integers is named when examples are first asked for.
        """
        return Splits(self.config, self.kept, whole=self)

    @property
    def can_be_narrowed(self) -> bool:
        """Whether examples are said by integers that could be fewer."""
        return self._whole.narrow is not None

    @functools.cached_property
    def numbers(self) -> Mapping[str, np.ndarray]:
        """What each integer of `narrowed` is here, by field.

        Raises:
          BadInput: there is nothing that could be fewer.
        """
        with under("config.data.source"):
            return self._whole.narrowed(self.occurring).numbers

    def given(self, inputs: Inputs) -> "Splits":
        """The whole ones or `narrowed`, whichever is what a model of these inputs is given."""
        whole = self.whole or self
        if not whole.can_be_narrowed or inputs.fields == whole.train.fields:
            return whole
        return whole.narrowed if inputs.fields == whole.narrowed.train.fields else whole

    def is_resident(self, dataset: Dataset) -> bool:
        """Whether the examples are held in memory, and on the device while they train."""
        if self.config.buckets:
            return False
        match self.config.mode:
            case "resident":
                return True
            case "stream":
                return False
            case "auto":
                return dataset.size <= self.config.resident_bytes

    @functools.cached_property
    def _whole(self) -> Dataset:
        """All training examples with all their labels, which no stage may have."""
        return self._read("train_split")

    @functools.cached_property
    def train(self) -> Dataset:
        """All training examples, without a label: `labelled` and `partly_labelled` give those."""
        return self._whole.hide_labels(np.arange(0))

    @functools.cached_property
    def test(self) -> Dataset:
        """What models are measured on."""
        return self._read("test_split")

    @functools.cached_property
    def test_inputs(self) -> Mapping[str, np.ndarray]:
        """All of its raw inputs, by field."""
        return self.test.inputs()

    @property
    def test_labels(self) -> np.ndarray | None:
        """Those of the test examples; None where there is no label at all."""
        return None if self.is_unlabelled else self.test.labels

    def shown(self, seed: int, own: Labels | None = None, *, path: str = "") -> np.ndarray:
        """Rows of the training examples whose labels may be used.

        Args:
          seed: of the choice.
          own: of a stage that may have others than those of the data.
          path: of the stage's config, for messages.
        """
        labels: Labels = self.config
        if own is not None and (own.labels_per_class, own.labels_share) != (None, None):
            labels = own
        return data.labelled_rows(
            self._whole,
            seed=seed,
            per_class=labels.labels_per_class,
            share=labels.labels_share,
            field="config.data" if labels is self.config else path,
        )

    def labelled(self, seed: int, own: Labels | None = None, *, path: str = "") -> Dataset:
        """The training examples whose labels may be used, alone; see `shown`.

        Raises:
          BadInput: there is none.
        """
        rows = self.shown(seed, own, path=path)
        if not len(rows):
            raise BadInput(
                path or "config.data", "no training example has a label that may be used"
            )
        return self._whole.select(rows)

    def partly_labelled(self, seed: int, own: Labels | None = None, *, path: str = "") -> Dataset:
        """All training examples, with the labels that may be used; see `shown`."""
        return self._whole.hide_labels(self.shown(seed, own, path=path))

    @functools.cached_property
    def _marks(self) -> dict[Any, dict[str, str]]:
        """What `fingerprints` has said: they are asked for at each stage and seed."""
        return {}

    def fingerprints(self, seed: int, stage: object) -> dict[str, str]:
        """Of what a stage of this seed may see: all inputs, and the labels that it may use.

        A label that is hidden from a stage changes nothing of it, not even its name.

        Args:
          seed: that it is run for.
          stage: its config.
        """
        own = stage if isinstance(stage, Labels) else None
        given = () if own is None else (own.labels_per_class, own.labels_share)
        if (seed, given) not in self._marks:
            train = self.partly_labelled(seed, own).fingerprint
            self._marks[seed, given] = {"train": train, "test": self.test.fingerprint}
        return self._marks[seed, given]

    @functools.cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """What models have said of the test examples, by the fingerprint of their stage."""
        return {}

    @functools.cached_property
    def is_unlabelled(self) -> bool:
        """Whether no example has a label, of those to learn from and of those to test by."""
        return not (self._whole.shown.any() or self.test.shown.any())

    @property
    def frame(self) -> dict[str, Any] | None:
        """How pictures of any shape have become those of the dataset; None where they had one before.

        `size`, `resize`, `crop` and `interpolation`, see `kdjax.data.sources.Frame`.
        """
        source = self.config.source
        if not isinstance(source, Pictures):
            return None
        rest = {name: getattr(source, name) for name in ("resize", "crop", "interpolation")}
        return {"size": views.sides(source.size), **rest}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the data, a line each."""
        return tuple(dict.fromkeys((*self.train.notes, *self.test.notes)))

    @property
    def inputs(self) -> Inputs:
        """What a model is given of an example, at the size that the dataset has it in."""
        of = self.config
        return Inputs.of(
            self.train.fields,
            mean=of.mean,
            std=of.std,
            crop=of.crop,
            interpolation=of.interpolation,
        )


def as_many(asked: int | None, *, usual: int, there: int) -> int:
    """`asked`; where no number is given, the usual one, or all that are there where they are fewer."""
    return min(usual, there) if asked is None else asked


@dataclasses.dataclass(frozen=True)
class Context:
    """Where a stage is run, and from what.

    Attributes:
      run: the whole config.
      name: of the stage.
      seed: that it is run for.
      folder: of its artifact.
      inputs: the artifacts that it needs, by the name of their stage.
      splits: the data.
      parallel: one device or several.
      ahead: nothing has run yet. The inputs are what earlier stages will leave (`Expected`), all
        arrays are traced, and nothing is read from the folder or written there.
      reference: gives what the model of the stage is compared with, where the run has such a stage.
        Who asks waits for one that another process is at.
      replay_step: look at this step of training and write nothing, see `kdjax.train.replay`.
    """

    run: config.Run
    name: str
    seed: int
    folder: epath.Path
    inputs: Mapping[str, Artifact]
    splits: Splits
    parallel: Parallel
    ahead: bool = False
    replay_step: int | None = None
    reference: Callable[[], Artifact] | None = None

    def given(self, inputs: Inputs) -> "Context":
        """The same with the data as a model of these inputs is given them."""
        splits = self.splits.given(inputs)
        return self if splits is self.splits else dataclasses.replace(self, splits=splits)

    @property
    def exact(self) -> bool:
        """Whether the shapes of what the inputs hold are known: not those of a model to be shrunk."""
        return all(not isinstance(a, Expected) or a.exact for a in self.inputs.values())

    @property
    def path(self) -> str:
        """Of the stage's config, for messages."""
        return f"config.stages.{self.name}"

    def sample_size(self, asked: int | None, *, usual: int) -> int:
        """How many training examples are looked at: see `as_many`."""
        return as_many(asked, usual=usual, there=len(self.splits.train))

    def check_sample(self, examples: int, *, field: str) -> None:
        """Raises `BadInput`, naming `field`, where there are not as many training examples."""
        n = len(self.splits.train)
        if not 0 < examples <= n:
            raise BadInput(field, f"{examples} is not between 1 and the {n} training examples")

    def sample_rows(self, examples: int, *, field: str) -> Int[np.ndarray, " examples"]:
        """Rows of training examples, drawn by the seed alone; of a larger sample the first ones.

        Raises:
          BadInput: there are not as many; the line names `field`, which asked for them.
        """
        self.check_sample(examples, field=field)
        return self._drawn_rows()[:examples]

    def _drawn_rows(self) -> Int[np.ndarray, " n"]:
        random = np.random.Philox(key=[self.seed, 0]).random_raw(len(self.splits.train))
        return np.argsort(random, kind="stable")

    def labelled_sample(
        self, examples: int, *, field: str
    ) -> tuple[Int[np.ndarray, " m"], Shaped[np.ndarray, "m ..."]]:
        """As `sample_rows`, only of those whose labels may be used, and their labels.

        There are fewer where fewer labels may be used.

        Raises:
          BadInput: as `sample_rows`, or there is no label that may be used.
        """
        self.sample_rows(examples, field=field)
        dataset = self.splits.partly_labelled(self.seed)
        rows = self._drawn_rows()
        rows = rows[dataset.shown[rows]][:examples]
        if not len(rows):
            raise BadInput(field, "no training example has a label that may be used")
        return rows, dataset.labels[rows]

    def sample(self, examples: int, *, field: str) -> Mapping[str, np.ndarray]:
        """Their raw inputs, [examples, ...] by field."""
        return self.splits.train.read(self.sample_rows(examples, field=field))

    @property
    def key(self) -> Key[Array, ""]:
        """Of the run; streams of views and steps are folded into it."""
        return jax.random.key(self.seed)
