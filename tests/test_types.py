"""What is refused: its path is put together once, whoever knows which part of it."""

import copy
import pickle

import pytest

from kdjax.artifacts.proof import Damaged
from kdjax.types import BadFile, BadInput, under


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (("k", "3 is too many", "give 2 at most"), "k: 3 is too many; give 2 at most"),
        (("k", "3 is too many"), "k: 3 is too many"),
        (("", "nothing is here", "name another"), "nothing is here; name another"),
        (("", "nothing is here"), "nothing is here"),
    ],
)
def test_the_line(parts, line):
    assert str(BadInput(*parts)) == line


@pytest.mark.parametrize(
    ("path", "above", "whole"),
    [
        ("k", ["signal", "config.stages.cache"], "config.stages.cache.signal.k"),
        ("", ["function", "config.data.source"], "config.data.source.function"),
        ("[0].name", ["config.stages.file.formats"], "config.stages.file.formats[0].name"),
        ("widths[1]", ["", "config"], "config.widths[1]"),
        ("labels", ["--config=a.py:"], "--config=a.py:labels"),
        ("configured", ["config"], "config.configured"),
        ("", ["", ""], ""),
        # What is whole stays as it is: nobody puts it there twice.
        ("config.data.name", ["signal", "config.stages.cache"], "config.data.name"),
        ("config", ["config.stages.cache"], "config"),
        ("config[0]", ["config"], "config[0]"),
        ("config, config.data", ["config"], "config, config.data"),
        ("--workdir", ["config.stages.cache"], "--workdir"),
        ("k", ["config.stages.cache", "config.stages.cache", "config"], "config.stages.cache.k"),
    ],
)
def test_a_path_grows_on_the_way_up_until_it_is_whole(path, above, whole):
    def raised(above):
        if not above:
            raise BadInput(path, "fault", "mend")
        with under(above[-1]):
            raised(above[:-1])

    with pytest.raises(BadInput) as caught:
        raised(above)
    found = caught.value
    assert (found.path, found.fault, found.mend) == (whole, "fault", "mend")
    assert str(found) == (f"{whole}: " if whole else "") + "fault; mend"


def test_a_field_that_is_called_otherwise_above():
    called = {"student_shape": "student", "paths": ""}
    for path, whole in (("student_shape", "a.student"), ("paths", "a"), ("weight", "a.weight")):
        assert BadInput(path, "fault").under("a", called).path == whole
    assert BadInput("config.paths", "fault").under("a", called).path == "config.paths"


def test_a_file_is_no_field(tmp_path):
    """Its path stays, and what its folder is damaged by can be told from what to do about it."""
    for error in (BadFile(tmp_path, "it is gone", "name another"), Damaged(tmp_path, "it is gone")):
        assert error.under("config.stages.cache").path == str(tmp_path)
        assert error.fault == "it is gone"
        assert str(error) == f"{tmp_path}: it is gone; {error.mend}"


def test_it_is_the_same_in_another_process():
    error = BadInput("k", "fault", "mend").under("config.stages.cache")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is BadInput
        assert str(other) == str(error) == "config.stages.cache.k: fault; mend"
        assert other.under("again").path == error.path
