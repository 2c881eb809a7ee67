"""Where weights are: a file, a folder, or a repository of the Hugging Face hub in its local cache."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.types import BadInput
from kdjax.weights import tensors
from kdjax.weights.preprocessing import Preprocessing, of_plain, of_timm, of_transformers
from kdjax.weights.tensors import FIELD, INDEX, Tensors

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files of a tokenizer, the first one that there is."""

KEY = "kdjax"
"""Of the JSON in the header of a file that kdjax wrote."""

_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_TIMM = re.compile(r"timm:([\w.-]+)(?:@([\w./-]+))?")


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
        if self.folder is None:
            return None
        there = (self.folder / name for name in TOKENIZERS)
        return next((path for path in there if path.is_file()), None)

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
            except (ValueError, TypeError, KeyError) as error:
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
    if source.startswith(("hf:", "timm:")):
        return _of_hub(source)
    if "://" in source:
        raise BadInput(FIELD, f"{source}: weights are read from a local path", "copy them first")
    return _of_place(source, Path(source).expanduser())


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
        said = json.loads(found.metadata.get(KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, Mapping) else {}


def _of_hub(source: str) -> Published:
    """Weights of a repository: those of the local cache, or else downloaded into it."""
    if (timm := _TIMM.fullmatch(source)) is not None:
        name, revision = f"timm/{timm[1]}", timm[2]
    elif (hub := _HUB.fullmatch(source)) is not None:
        name, revision = hub[1], hub[2]
    else:
        raise BadInput(
            FIELD, f"{source!r} names no repository", "write hf:owner/name, or timm:name"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise BadInput(
            FIELD,
            f"{source} needs the package huggingface_hub",
            'pip install "kdjax[hub]", or give a local folder',
        ) from None

    def cached(file: str) -> Path | None:
        found = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        return Path(found) if isinstance(found, str) else None

    weights = cached(INDEX) or cached("model.safetensors")
    if weights is None or not _is_complete(weights):
        weights = _downloaded(source, name, revision)
    return _of_place(source, weights.parent, revision=weights.parent.name)


def _is_complete(weights: Path) -> bool:
    """Whether all files are there that an index names."""
    if weights.name != INDEX:
        return True
    said = tensors.read_json(weights).get("weight_map")
    names = set(said.values()) if isinstance(said, Mapping) else set()
    return all((weights.parent / str(name)).is_file() for name in names)


def _downloaded(source: str, name: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[
                "model*.safetensors",
                *(INDEX, CONFIG, PREPROCESSOR),
                *(*TOKENIZERS, "tokenizer_config.json", "merges.txt"),
            ],
        )
    except errors.RepositoryNotFoundError:
        raise BadInput(
            FIELD,
            f"{source}: there is no repository {name}, or it is not open to you",
            "look at its name; log in with `hf auth login`",
        ) from None
    except errors.RevisionNotFoundError:
        raise BadInput(FIELD, f"{source}: there is no revision {revision}") from None
    except Exception as error:  # of whatever the network is: the library has many
        at = f" --revision={revision}" if revision else ""
        raise BadInput(
            FIELD,
            f"{source} is not in the cache {constants.HF_HUB_CACHE}, and cannot be downloaded "
            f"({type(error).__name__})",
            f"where there is a network, run `hf download {name}{at} --local-dir=DIR`, copy DIR here and "
            "give it as the weights",
        ) from None
    for file in (INDEX, "model.safetensors"):
        if (found := Path(folder) / file).is_file():
            return found
    raise BadInput(
        FIELD,
        f"{source}: the repository has no model.safetensors",
        "convert its weights: kdjax convert FILE OUT.safetensors",
    )
