"""`--config.a.b=value` changes `a.b` and nothing else, in every config of the repository."""

import copy
from collections.abc import Iterator, Mapping

import pytest
from ml_collections import ConfigDict

from kdjax import config, load, parse
from kdjax.config.methods.contrast import SimCLR
from kdjax.config.optimizers import Cosine
from kdjax.types import BadInput
from tests import config_lines


def leaves(value, path: str = "") -> Iterator[tuple[str, object]]:
    """`(path, value)` of all that is neither a dict nor a list."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, inner in items:
        at = f"{path}.{name}" if path else str(name)
        if isinstance(inner, Mapping | list | tuple) and len(inner):
            yield from leaves(inner, at)
        else:
            yield at, inner


def changes(before, after) -> set[str]:
    """Paths at which two plain values differ."""
    one, two = dict(leaves(before)), dict(leaves(after))
    return {path for path in one.keys() | two.keys() if one.get(path, ...) != two.get(path, ...)}


def others(value) -> list:
    """Values of the same sort, of which some may not be allowed."""
    match value:
        case bool():
            return [not value]
        case int():
            return [n for n in (value * 2, value + 1, value + 6, value - 1) if n != value]
        case float():
            return [value / 2 + 1 / 64, value / 4 + 1 / 64]
        case str():
            return [f"{value}x"]
        case None:
            return [0.125, 2, "x"]
    return []


def overridden(values: dict, path: str, value) -> dict:
    made = dict(values)  # what is inside may be shared: `override` copies what it changes
    parse.override(made, path, repr(value), config.Run)
    return made


def check(values: dict, *, every: int = 1) -> tuple[int, int]:
    """Overrides every leaf of the run; gives how many, and how many gave another run."""
    kept, run = copy.deepcopy(values), parse.plain(parse.parse(config.Run, values))
    tried = accepted = 0
    for path, value in list(leaves(run))[::every]:
        for other in others(value):
            made = overridden(values, path, other)
            tried += 1
            try:
                after = parse.plain(parse.parse(config.Run, made))
            except BadInput:
                continue  # the field has no such value
            assert changes(run, after) == {path}
            accepted += 1
            break
    assert values == kept
    return tried, accepted


@pytest.mark.parametrize("path", config_lines.FILES, ids=lambda path: path.stem)
def test_an_override_changes_its_own_path_alone(path):
    """Some leaves of each file; `thorough` has all, with every argument."""
    values = config_lines.loaded(path)
    count = sum(1 for _ in leaves(values))
    assert check(values, every=max(1, count // 12))[1] > 5


@pytest.mark.thorough
@pytest.mark.parametrize("path", config_lines.FILES, ids=lambda path: path.stem)
def test_every_override_of_every_argument_changes_its_own_path_alone(path):
    for arg in config_lines.args_of(path):
        tried, accepted = check(config_lines.loaded(path, arg))
        print(f"{path.stem}:{arg}: {accepted} of {tried}")
        assert accepted > 0.25 * tried


SHARED = {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "cosine"}}
STAGE = {"kind": "finetune", "encoder": {"name": "cnn", "widths": [4]}, "steps": 9, "batch": 8}
STAGE |= {"views": {"recipe": "eval"}, "optimizer": SHARED}


@pytest.mark.parametrize("kind", [dict, ConfigDict])
def test_one_dict_in_two_places(kind):
    """The case that was found: a rate of the student was also the teacher's."""
    stages = {"first": dict(STAGE), "second": dict(STAGE)}
    made = kind({"name": "x", "data": {"name": "digits"}, "stages": stages})
    values = load.plain(made)
    check(values)
    for item in ("first.optimizer.learning_rate=0.5", "second.optimizer.schedule.warmup_steps=3"):
        parse.override(values, *f"stages.{item}".split("="), config.Run)
    run = parse.parse(config.Run, values)
    first, second = (run.stages[name].optimizer for name in ("first", "second"))
    assert (first.learning_rate, second.learning_rate) == (0.5, 0.1)
    assert (first.schedule.warmup_steps, second.schedule.warmup_steps) == (0, 3)
    assert SHARED == {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "cosine"}}


def test_one_dict_twice_in_a_list():
    one = {"temperature": 2.0}
    values = {"stages": {"a": {"kind": "distill", "sweep": [one, one]}}}
    parse.override(values, "stages.a.sweep.1.temperature", "3.0", config.Run)
    parse.override(values, "stages.a.sweep[0].kd_weight", "0.5", config.Run)
    found = values["stages"]["a"]["sweep"]
    assert found == [{"temperature": 2.0, "kd_weight": 0.5}, {"temperature": 3.0}]
    assert one == {"temperature": 2.0}


def test_what_is_left_at_a_default_with_fields_begins_as_that_default():
    stage = {"kind": "pretrain", "encoder": {"name": "cnn", "widths": [4]}, "steps": 9, "batch": 8}
    stage |= {"views": {"recipe": "simclr"}, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    values = {"name": "x", "data": {"name": "digits"}, "stages": {"a": stage}}
    parse.override(values, "stages.a.method.temperature", "0.25", config.Run)
    parse.override(values, "stages.a.optimizer.schedule.warmup_steps", "3", config.Run)
    parse.override(values, "data.mean.0", "0.5", config.Run)
    run = parse.parse(config.Run, values)
    assert run.stages["a"].method == SimCLR(name="simclr", temperature=0.25)
    assert run.stages["a"].optimizer.schedule == Cosine(name="cosine", warmup_steps=3)
    assert run.data.mean == (0.5,)
    # Nothing stands there to begin from: what is asked for is named.
    parse.override(values, "stages.a.prune.sparsity", "0.5", config.Run)
    with pytest.raises(
        BadInput, match=r"^config.stages.a.prune.name: missing; it is one of gradual"
    ):
        parse.parse(config.Run, values)


def test_what_contains_itself_is_named():
    inner: dict = {}
    inner["again"] = [inner]
    with pytest.raises(BadInput, match=r"^config\.a\.again\[0\]: contains itself"):
        load.plain({"a": inner})
