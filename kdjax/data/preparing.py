"""Downloads and prepares a TFDS dataset, once, as `kdjax.data.prepared` reads it.

TFDS does the work, and needs TensorFlow for most datasets. What it has downloaded stays and is not
downloaded again; files that somebody has put into `downloads/manual` by their names are taken instead.
"""

import contextlib
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath, epy

from kdjax import files, paths, spelling
from kdjax.data.prepared import builder_of, check, newest, versions
from kdjax.files import from_json
from kdjax.types import BadInput, StorageFailed, under

with epy.lazy_imports():  # slow to import
    import requests
    import tensorflow_datasets as tfds

_NAMED = 4
"""Files that a message names."""


class Outcome(NamedTuple):
    """A dataset that is prepared.

    Attributes:
      name: as `data.name` has it.
      folder: where it is.
      before: it was there already.
      splits: how many examples each has.
      note: why a config must say more than its name, or cannot read it; empty where the name is enough.
    """

    name: str
    folder: epath.Path
    before: bool
    splits: Mapping[str, int]
    note: str


def there(name: str, *, data_dir: str) -> Outcome | None:
    """What is prepared below `data_dir` by this name; None where nothing is, and it can be.

    Args:
      name: `cifar100`, `cifar100:3.0.2`, or `name/config:version`; the newest version by default.
      data_dir: that holds `NAME/VERSION`.

    Raises:
      BadInput: TFDS does not know it, or what is there is damaged, or is not read by row.
    """
    root = paths.parse(data_dir, field="--data_dir")
    paths.check_directory(root, field="--data_dir")
    with under("", {"data.name": "NAME"}):
        folder = newest(versions(name, root), name)
    if folder is not None:
        return _outcome(name, folder, before=True)
    builder = _builder(name, root)  # with the config that a bare name means
    folder = epath.Path(builder.data_path)
    if not (folder / "dataset_info.json").exists():
        return None
    return _outcome(_named(name, builder), folder, before=True)


def prepare(name: str, *, data_dir: str, manual_dir: str | None = None) -> Outcome:
    """Prepares a dataset that is not there.

    Stopped and started again, it goes on with the files that were downloaded; the records are written
    anew.

    Args:
      name: see `there`.
      data_dir: that will hold `NAME/VERSION`; made where it is not.
      manual_dir: with files that TFDS does not download, or shall not; `DATA_DIR/downloads/manual` by
        default.

    Raises:
      BadInput: TFDS does not know it, cannot download it, or wants files that only a user may have; the
        line says which, and where to put them.
      StorageFailed: it cannot be written.
    """
    root = paths.parse(data_dir, field="--data_dir")
    manual = root / "downloads" / "manual"
    if manual_dir is not None:
        manual = paths.parse(manual_dir, field="--manual_dir")
        if not manual.is_dir():
            raise BadInput("--manual_dir", f"{manual} is not a directory", "name one")
    builder = _builder(name, root)
    wanted = _Wanted(builder, root / "downloads", manual)
    wanted.check()
    with _failing(name, wanted):
        root.mkdir(parents=True, exist_ok=True)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=os.fspath(manual), try_download_gcs=False
            ),
            download_dir=os.fspath(wanted.downloads),
            file_format="array_record",
        )
    return _outcome(_named(name, builder), epath.Path(builder.data_path), before=False)


def _named(name: str, builder: Any) -> str:
    """As `data.name` has it: with the config that a bare name means."""
    return name if ":" in name else os.path.dirname(builder.info.full_name)


def _outcome(name: str, folder: epath.Path, *, before: bool) -> Outcome:
    """What is there, and whether a config may read it by its name alone."""
    with under("", {"data.name": "--data_dir"}):
        builder = builder_of(folder)
    splits = {split: info.num_examples for split, info in builder.info.splits.items()}
    note = ""
    try:
        check(builder.info.features, name, image_key="image", label_key="label")
    except BadInput as error:
        note = str(error)
    return Outcome(name, folder, before, splits, note)


def _builder(name: str, root: epath.Path) -> Any:
    """Of a dataset that TFDS knows.

    Raises:
      BadInput: it knows none of this name, config or version, or cannot make it.
    """
    try:
        return tfds.builder(name, data_dir=os.fspath(root), file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        bare = name.partition(":")[0].partition("/")[0]
        raise BadInput(
            "NAME", f"TFDS has no dataset {name!r}", spelling.close(bare, known)
        ) from None
    except Exception as error:  # of a config, a version, or of what it imports
        why = error.__cause__ or error  # which TFDS puts the arguments before
        raise BadInput("NAME", f"TFDS cannot make {name}: {_line(why)}") from None


class _Wanted(NamedTuple):
    """The files that a dataset is made of.

    Attributes:
      builder: of the dataset.
      downloads: where what TFDS downloads lies.
      manual: where it looks for files by their names first.
    """

    builder: Any
    downloads: epath.Path
    manual: epath.Path

    def named(self) -> dict[str, str]:
        """Their names by where they come from, as far as TFDS knows them."""
        found = (self.builder.url_infos or {}).items()
        return {url: info.filename for url, info in found if info.filename}

    def lacking(self) -> dict[str, str]:
        """Likewise, of those that are not there."""
        known = {*self._downloaded()}
        return {
            url: name
            for url, name in self.named().items()
            if url not in known and not (self.manual / name).exists()
        }

    def _downloaded(self) -> Iterator[str]:
        """Where the files come from that TFDS has downloaded: a note lies beside each."""
        if not self.downloads.is_dir():
            return
        for place in (self.downloads, self.downloads / self.builder.name):
            for note in place.glob("*.INFO.json"):
                if (note.parent / note.name.removesuffix(".INFO.json")).exists():
                    yield from from_json(note.read_text()).get("urls", ())

    def mend(self) -> str:
        """What to do where they cannot be downloaded."""
        lacking = [f"{name} ({url})" for url, name in self.lacking().items()]
        if not lacking:
            return f"look at {self.downloads}, and run the same command again"
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        return (
            f"put {', '.join(lacking[:_NAMED])}{more} into {self.manual}, and run the same command "
            "again: what was downloaded stays"
        )

    def check(self) -> None:
        """What can be said before anything is downloaded.

        Raises:
          BadInput: the files are for a user to fetch and not there, or there is no network.
        """
        told, name = self.builder.MANUAL_DOWNLOAD_INSTRUCTIONS, self.builder.name
        if told and not (self.manual.is_dir() and any(self.manual.iterdir())):
            how = " ".join(told.split()).rstrip(".")
            raise BadInput(
                "--manual_dir",
                f"TFDS does not download {name}, and {self.manual} is empty: {how}",
                "put the files there, or name the directory that has them",
            )
        lacking = self.lacking()
        if not lacking or len(lacking) < len(self.named()) or urllib.request.getproxies():
            return  # what is there may be enough: TFDS knows more files than a config of it needs
        hosts = dict.fromkeys(urllib.parse.urlsplit(url).hostname for url in lacking)
        unknown = [host for host in hosts if host is not None and not _is_found(host)]
        if unknown:
            raise BadInput("NAME", f"{name}: no network, {unknown[0]} is not found", self.mend())


def _is_found(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


@contextlib.contextmanager
def _failing(name: str, wanted: _Wanted) -> Iterator[None]:
    """What TFDS raises becomes one line.

    Raises:
      BadInput: it lacks a package, a file or the network, or cannot read what is there.
      StorageFailed: in place of an error of the operating system.
    """
    try:
        yield
    except Exception as error:
        missing = next((e for e in _causes(error) if isinstance(e, ModuleNotFoundError)), None)
        if missing is not None:
            extra = "pip install 'kdjax[prepare]'" if missing.name == "tensorflow" else "install it"
            raise BadInput(
                "NAME",
                f"to prepare {name}, TFDS needs {missing.name}, which is not installed",
                f"{extra}, and run the same command again: what was downloaded stays",
            ) from None
        network = isinstance(error, requests.RequestException)
        if isinstance(error, OSError) and error.errno is not None and not network:
            raise StorageFailed(files.described(error, wanted.downloads)) from error
        verb = "download" if network else "prepare"
        raise BadInput(
            "NAME", f"TFDS cannot {verb} {name}: {_line(error)}", wanted.mend()
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:280]}..."
