"""Where weights are: a file, a folder, or a repository of the Hugging Face hub in its local cache."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax import paths
from kdjax.files import from_json
from kdjax.types import BadInput
from kdjax.weights import hub, tensors
from kdjax.weights.preprocessing import Preprocessing, of_plain, of_timm, of_transformers
from kdjax.weights.tensors import FIELD, INDEX, Tensors

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"

KEY = "kdjax"
"""Of the JSON in the header of a file that kdjax wrote."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A network's weights and what is said beside them.

    Attributes:
      source: as the user wrote it.
      tensors: by name.
      config: of config.json, empty where there is none.
      preprocessor: of preprocessor_config.json, likewise.
      written: what kdjax wrote into the header, likewise.
      revision: the commit, of a repository.
      folder: that all of it is in; None of a file that has others beside it.
    """

    source: str
    tensors: Tensors
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    written: Mapping[str, Any]
    revision: str | None = None
    folder: Path | None = None

    @property
    def tokenizer(self) -> Path | None:
        """By which the texts became integers that it was trained on; None where there is none beside."""
        return None if self.folder is None else hub.tokenizer_in(self.folder)

    @property
    def architecture(self) -> str | None:
        """What the files say that it is: `resnet18.a1_in1k`, `ResNetForImageClassification`."""
        found = self.config.get("architecture")
        if isinstance(found, str):
            return found
        found = self.config.get("architectures")
        if isinstance(found, list) and found and isinstance(found[0], str):
            return found[0]
        found = self.written.get("architecture") or self.config.get("model_type")
        return found if isinstance(found, str) else None

    @functools.cached_property
    def preprocessing(self) -> Preprocessing | None:
        """What it was trained with; None where no file says so.

        Raises:
          BadInput: a file says what cannot be understood.
        """
        said = self.written.get("preprocessing")
        for file, given, read in (
            ("the header", said, of_plain),
            (CONFIG, self.config, of_timm),
            (PREPROCESSOR, self.preprocessor, of_transformers),
        ):
            if not given:
                continue
            try:
                found = read(given)
            except (ValueError, TypeError, KeyError, ArithmeticError) as error:
                raise BadInput(
                    FIELD,
                    f"{self.tensors.place}: {file}: its preprocessing cannot be understood "
                    f"({type(error).__name__}: {' '.join(str(error).split())[:80]})",
                    "correct it, or take the file away",
                ) from None
            if found is not None:
                return found
        return None


def published(source: str) -> Published:
    """Finds weights, and reads their headers and what is said beside them.

    Args:
      source: a safetensors file; a folder with one or several, and perhaps `config.json`;
        `hf:owner/name[@revision]`; `timm:name`, which is `hf:timm/name`.

    Raises:
      BadInput: they are not there, or not whole, or no safetensors.
    """
    if hub.is_one(source):
        return _of_hub(source)
    if "://" in source:
        raise BadInput(FIELD, f"{source}: weights are read from a local path", "copy them first")
    return _of_place(source, Path(paths.parse(source, field=FIELD)))


def preprocessing(source: str) -> Preprocessing | None:
    """How the pictures were made ready that weights were trained on; None where no file says so.

    Args:
      source: as of `published`.

    Raises:
      BadInput: as `published`, or what is said cannot be understood.
    """
    return published(source).preprocessing


def _of_place(source: str, place: Path, revision: str | None = None) -> Published:
    found = tensors.opened(place)
    folder = place if place.is_dir() else _own_folder(place)

    def beside(name: str) -> Mapping[str, Any]:
        if folder is None or not (folder / name).is_file():
            return {}
        return tensors.read_json(folder / name)

    return Published(
        source, found, beside(CONFIG), beside(PREPROCESSOR), _written(found), revision, folder
    )


def _own_folder(file: Path) -> Path | None:
    """The folder of a file whose config.json is that file's: there are no other weights."""
    others = [path for path in file.parent.glob("*.safetensors") if path.name != file.name]
    return None if others else file.parent


def _written(found: Tensors) -> Mapping[str, Any]:
    """What kdjax wrote into a header, empty in a file of others."""
    try:
        said = from_json(found.metadata.get(KEY, "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, Mapping) else {}


def _of_hub(source: str) -> Published:
    """Weights of a repository: those of the local cache, or else downloaded into it."""
    folder = hub.named(source, field=FIELD).folder(
        _are_whole,
        ("model*.safetensors", INDEX, CONFIG, PREPROCESSOR, *hub.TOKENIZER),
        what="model.safetensors",
        instead="the weights",
        mend="convert its weights: kdjax convert FILE OUT.safetensors",
    )
    return _of_place(source, folder, revision=folder.name)


def _are_whole(folder: Path) -> bool:
    """Whether there are weights, and all files are there that an index names."""
    if not (folder / INDEX).is_file():
        return (folder / "model.safetensors").is_file()
    said = tensors.read_json(folder / INDEX).get("weight_map")
    names = set(said.values()) if isinstance(said, Mapping) else set()
    return all((folder / str(name)).is_file() for name in names)
