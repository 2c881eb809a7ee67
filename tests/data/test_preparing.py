"""`kdjax prepare`: TFDS's own work on small datasets that need no TensorFlow, and what is said of it."""

import functools
import http.server
import importlib.util
import shutil
import threading

import numpy as np
import pytest

from kdjax import data, main
from kdjax.data import preparing
from kdjax.types import BadInput
from tests import picture_files, prepared_sets, tfds_sets

pytestmark = pytest.mark.filterwarnings("ignore")  # of TFDS and of what it downloads with


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http", "https", "all", "no"):
        for written in (name, name.upper()):
            monkeypatch.delenv(f"{written}_proxy", raising=False)
            monkeypatch.delenv(f"{written}_PROXY", raising=False)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serves the archive from here; the list of what was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(self.path)

    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "sheets.zip").write_bytes(tfds_sets.archive())
    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/sheets.zip"
    told = tfds_sets.told(url, tfds_sets.archive())
    monkeypatch.setattr(tfds_sets.Sheets, "url_infos", told)
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def _read(root, split):
    found = data.prepared("sheets", split, data_dir=str(root))
    images = found.read(np.arange(len(found)))["image"]
    begin = 100 if split == "test" else 0
    wanted = [picture_files.pixels(begin + i, height=6, width=8) for i in range(len(found))]
    np.testing.assert_array_equal(images, np.stack(wanted))
    np.testing.assert_array_equal(found.labels, np.arange(len(found)) % 2)
    return len(found)


def test_is_downloaded_once_and_read_without_tensorflow(tmp_path, served):
    root = tmp_path / "sets"
    assert preparing.there("sheets", data_dir=str(root)) is None
    found = preparing.prepare("sheets", data_dir=str(root))
    assert (found.name, found.before, found.note) == ("sheets", False, "")
    assert found.splits == {"train": 12, "test": 4}
    assert [_read(root, split) for split in ("train", "test")] == [12, 4]
    again = preparing.there("sheets", data_dir=str(root))
    assert again is not None
    assert again.before
    assert again.folder == found.folder
    # Of a run that was stopped while it wrote, what it had downloaded is there.
    shutil.rmtree(found.folder)
    before = len(served)
    preparing.prepare("sheets", data_dir=str(root))
    assert len(served) == before > 0
    assert _read(root, "train") == 12


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_file_that_was_put_there_is_taken(tmp_path, elsewhere):
    manual = tmp_path / ("mine" if elsewhere else "sets/downloads/manual")
    manual.mkdir(parents=True)
    (manual / "sheets.zip").write_bytes(tfds_sets.archive())
    given = {"manual_dir": str(manual)} if elsewhere else {}
    preparing.prepare("sheets", data_dir=str(tmp_path / "sets"), **given)
    assert _read(tmp_path / "sets", "test") == 4


def test_without_a_network_the_file_and_its_place_are_named(tmp_path):
    line = (
        rf"^NAME: sheets: no network, nowhere.invalid is not found; put sheets.zip "
        rf"\({tfds_sets.NOWHERE}\) into .*/sets/downloads/manual, and run the same command again"
    )
    with pytest.raises(BadInput, match=line):
        preparing.prepare("sheets", data_dir=str(tmp_path / "sets"))
    assert not (tmp_path / "sets").exists()


def test_a_file_that_is_another(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "sheets.zip").write_bytes(b"half of it")
    with pytest.raises(BadInput, match=r"^NAME: TFDS cannot prepare sheets: .* wrong checksum"):
        preparing.prepare("sheets", data_dir=str(tmp_path))


def test_what_tfds_does_not_download(tmp_path):
    line = (
        r"^--manual_dir: TFDS does not download sheets_by_hand, and .*/downloads/manual is empty: "
        r"Write to the archive for sheets.zip, and unpack it; put the files there"
    )
    with pytest.raises(BadInput, match=line):
        preparing.prepare("sheets_by_hand", data_dir=str(tmp_path))
    manual = tmp_path / "mine"
    with pytest.raises(BadInput, match=r"^--manual_dir: .*/mine is not a directory"):
        preparing.prepare("sheets_by_hand", data_dir=str(tmp_path), manual_dir=str(manual))
    manual.mkdir()
    (manual / "another.txt").write_text("1")
    with pytest.raises(Exception, match=r"numbers.txt"):
        preparing.prepare("sheets_by_hand", data_dir=str(tmp_path), manual_dir=str(manual))
    (manual / "numbers.txt").write_text("3 4 5")
    found = preparing.prepare("sheets_by_hand", data_dir=str(tmp_path), manual_dir=str(manual))
    assert found.splits == {"train": 3}
    assert found.note.startswith("data.image_key: sheets_by_hand has no feature 'image'")


def test_a_package_that_tfds_needs(tmp_path):
    (tmp_path / "sheets.zip").write_bytes(tfds_sets.archive())
    line = r"^NAME: to prepare sheets_in_a_dialect, TFDS needs a_package_that_nobody_has, which"
    with pytest.raises(BadInput, match=line):
        preparing.prepare("sheets_in_a_dialect", data_dir=str(tmp_path), manual_dir=str(tmp_path))


def _prepare(*args):
    return main.main(["kdjax", "prepare", *args])


def test_what_is_there_is_said_and_needs_no_extra(tmp_path, capsys, monkeypatch):
    features = tfds_sets.Sheets(data_dir=str(tmp_path)).info.features
    image = picture_files.encoded(picture_files.pixels(1, height=6, width=8))
    example = {"image": image, "label": 1}
    for version in ("1.0.0", "1.10.0"):
        prepared_sets.write(tmp_path / "mine" / version, features, {"train": [[example]]})
    assert _prepare("mine", f"--data_dir={tmp_path}") == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{tmp_path}/mine/1.10.0 was prepared before: train 1; in a config: ")
    monkeypatch.setenv("KDJAX_DATA_DIR", str(tmp_path))
    assert _prepare("mine:1.0.0") == 0
    assert "data.name=mine:1.0.0 " in capsys.readouterr().out


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_without_the_extra(tmp_path):
    with pytest.raises(BadInput, match=r"^kdjax prepare needs its extra: pip install 'kdjax\[prep"):
        _prepare("cifar10", f"--data_dir={tmp_path}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cifer10", r"^NAME: TFDS has no dataset 'cifer10'; did you mean cifar10\?$"),
        ("../cifar10", r"^NAME: '../cifar10' is no name of a dataset; write NAME"),
        ("cifar10:0.0.1", r"^NAME: TFDS cannot make cifar10:0.0.1: .* cannot be loaded at version"),
        ("sequential", r"^--data_dir: .*/sequential/1.0.0 has no random access; move it away"),
    ],
)
def test_names_that_cannot_be(tmp_path, name, line):
    features = tfds_sets.Sheets(data_dir=str(tmp_path)).info.features
    folder = tmp_path / "sequential" / "1.0.0"
    prepared_sets.write(folder, features, {"train": [[]]}, file_format="tfrecord")
    with pytest.raises(BadInput, match=line):
        _prepare(name, f"--data_dir={tmp_path}")


def test_it_must_be_said_where(monkeypatch):
    monkeypatch.delenv("KDJAX_DATA_DIR", raising=False)
    with pytest.raises(BadInput, match=r"^--data_dir: it is not said where to prepare it; give it"):
        _prepare("cifar10")
