"""What a stage is given besides its own config."""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Int, Key, UInt8

from kdjax import config, data
from kdjax.config import Labels
from kdjax.data import Dataset
from kdjax.stages import build
from kdjax.stages.artifact import Artifact
from kdjax.train import Parallel
from kdjax.types import BadInput


@dataclasses.dataclass(frozen=True)
class Splits:
    """The data of a run: read when first asked for, shared by all stages."""

    config: config.Data

    def _read(self, split: str) -> Dataset:
        dataset = build.dataset(self.config, split)
        return dataset.held() if self.is_resident(dataset) else dataset

    def is_resident(self, dataset: Dataset) -> bool:
        """Whether the examples are held in memory, and on the device while they train."""
        match self.config.mode:
            case "resident":
                return True
            case "stream":
                return False
            case "auto":
                size = len(dataset) * math.prod(dataset.image_shape)
                return size <= self.config.resident_bytes

    @functools.cached_property
    def train(self) -> Dataset:
        """All training examples with all their labels."""
        return self._read(self.config.train_split)

    @functools.cached_property
    def test(self) -> Dataset:
        """What models are measured on."""
        return self._read(self.config.test_split)

    @functools.cached_property
    def test_images(self) -> np.ndarray:
        """All of its images."""
        return self.test.images()

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
            self.train,
            seed=seed,
            per_class=labels.labels_per_class,
            share=labels.labels_share,
            field="data" if labels is self.config else path,
        )

    def labelled(self, seed: int, own: Labels | None = None, *, path: str = "") -> Dataset:
        """The training examples whose labels may be used, alone; see `shown`."""
        return self.train.select(self.shown(seed, own, path=path))

    def partly_labelled(self, seed: int) -> Dataset:
        """All training examples, with the labels that may be used."""
        return self.train.hide_labels(self.shown(seed))

    @property
    def size(self) -> int:
        """Side of an image as the dataset has it."""
        return max(self.train.image_shape[:2])


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
      replay_step: look at this step of training and write nothing, see `kdjax.train.replay`.
    """

    run: config.Run
    name: str
    seed: int
    folder: epath.Path
    inputs: Mapping[str, Artifact]
    splits: Splits
    parallel: Parallel
    replay_step: int | None = None

    def sample_rows(self, examples: int, *, field: str) -> Int[np.ndarray, " examples"]:
        """Rows of training examples, drawn by the seed alone; of a larger sample the first ones.

        Raises:
          BadInput: there are not as many; the line names `field`, which asked for them.
        """
        n = len(self.splits.train)
        if not 0 < examples <= n:
            raise BadInput(f"{field}: {examples} is not between 1 and the {n} training examples")
        random = np.random.Philox(key=[self.seed, 0]).random_raw(n)
        return np.argsort(random, kind="stable")[:examples]

    def sample(
        self, examples: int, *, field: str
    ) -> UInt8[np.ndarray, "examples height width channel"]:
        """Their raw images."""
        return self.splits.train.read(self.sample_rows(examples, field=field))

    @property
    def key(self) -> Key[Array, ""]:
        """Of the run; streams of views and steps are folded into it."""
        return jax.random.key(self.seed)
