"""Every field of a config, changed in twelve ways: accepted and sensible, or one line with its path.

What must be refused is written down here by what the names of fields mean, apart from the ranges in
`kdjax.config`.
"""

import collections
import copy
import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping

import pytest
from etils import epath

from kdjax import config, explain, parse, pipeline
from kdjax.checks.coupling import check_rows
from kdjax.contexts import Splits, build
from kdjax.models import Compute
from kdjax.types import BadInput, under
from tests import config_lines

HUGE = 10**30


def mutations(value) -> Iterator[tuple[str, object]]:
    """Twelve values in the place of one."""
    yield "text", "x y"
    yield "negative", -1
    yield "zero", 0
    yield "huge", HUGE
    yield "nan", math.nan
    yield "inf", math.inf
    yield "empty", []
    yield "none", None
    yield "twice", [*value, *value] if isinstance(value, list) else [value, value]
    yield "unknown", {**value, "nonsense": 1} if isinstance(value, Mapping) else "nonsense"
    yield "nested", {"name": {"name": value}}
    yield "bool", True


def fields(kind, value, path: str) -> Iterator[tuple[str, str, object, object]]:
    """`(path, name, type, value)` of every field in a plain value of a type, and of items of lists."""
    kind = bare(kind)
    if members := parse.alternatives(kind):
        for member in members:
            yield from fields(member, value, path)
    elif dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        hints = parse.hints(kind)
        tags = [
            n
            for n in ("kind", "name", "recipe")
            if typing.get_origin(hints.get(n)) is typing.Literal
        ]
        if set(value) == {field.name for field in dataclasses.fields(kind)} and all(
            value[tag] in typing.get_args(hints[tag]) for tag in tags
        ):
            for name, inner in value.items():
                yield f"{path}.{name}", name, hints[name], inner
                yield from fields(hints[name], inner, f"{path}.{name}")
    elif typing.get_origin(kind) is tuple and isinstance(value, list) and value:
        yield f"{path}[0]", f"{path.rpartition('.')[2]}[]", typing.get_args(kind)[0], value[0]
        yield from fields(typing.get_args(kind)[0], value[0], f"{path}[0]")
    elif typing.get_origin(kind) is collections.abc.Mapping and isinstance(value, Mapping):
        for name, inner in value.items():
            yield from fields(typing.get_args(kind)[1], inner, f"{path}.{name}")


def bare(kind):
    """The type without its ranges."""
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return kind


def members(kind) -> list:
    """The types that a field takes, without their ranges."""
    kind = bare(kind)
    if parse.alternatives(kind):
        return [m for arg in parse.alternatives(kind) for m in members(arg)]
    return [kind]


# --- what must be refused, by the names of the fields ----------------------------------------------

ANY_NUMBER = {"noise", "mean[]", "begin", "end"}
"""Numbers that may be negative; a ramp's are bounded by the field that it stands in."""

MAY_FALL = {"accuracy_drop"}

MAY_BE_ZERO = re.compile(
    r"low|gain|noise|time_mask|band_mask|.*weight|.*weights?\[\]|weight_decay|.*momentum|momentum|memory|shear|turn|b1|b2|ema|scale_l1|dispatch_steps|warmup_steps"
    r"|types|dropout|attention_dropout|begin_step|rewind_step|freeze_steps|at_steps\[\]|local_crops|label_smoothing|sparsity|flip|shift"
    r"|brightness|contrast|saturation|hue|jitter|grayscale|blur|cutout|pools|tolerance|agreement"
    r"|resident_bytes|latency_seconds|examples|alpha|beta|gamma|distance|angle|invariance|variance|covariance|seeds?(\[\])?"
    r"|allocation\[\]|hide|drop|blocks\[\]|around|delay|band_masks|frame_masks"
)

PARTS_OF_A_WHOLE = re.compile(
    r"momentum|memory|shear|center_momentum|dropout|attention_dropout|b1|b2|ema|label_smoothing|share|sparsity|sparsities\[\]|flip|jitter"
    r"|grayscale|blur|hue|agreement|validation|fraction|correct_probability|labels_share|accuracy_drop"
    r"|crop_scale\[\]|crop\[\]|percentile|hide|drop"
)

NEEDS_ONE = {
    "seeds",
    "formats",
    "widths",
    "mean",
    "std",
    "student",
    "relations",
    "temperatures",
    "strengths",
    "rules",
}

EACH_ONCE = {
    "seeds",
    "formats",
    "strengths",
    "sparsities",
    "rules",
    "numbers",
    "at_steps",
    "accept",
    "relations",
}


def must_refuse(how: str, name: str, kind, value) -> bool:
    """Whether a change is nonsense by the meaning of the field."""
    kinds = members(kind)
    number = int in kinds or float in kinds
    plain = {bare(k) for k in kinds} <= {int, float, str, bool, types.NoneType}
    match how:
        case "nan" | "inf" | "nested":
            return True
        case "bool":
            return bool not in kinds
        case "text":
            return str not in kinds
        case "negative":
            return not (name in ANY_NUMBER | MAY_FALL and number)
        case "zero":
            zero = MAY_BE_ZERO.fullmatch(name) or name in ANY_NUMBER | MAY_FALL
            return not (number and zero)
        case "huge":
            return float not in kinds or bool(PARTS_OF_A_WHOLE.fullmatch(name))
        case "empty":
            return plain or name in NEEDS_ONE
        case "none":
            return types.NoneType not in kinds
        case "twice":
            return plain or (name in EACH_ONCE and bool(value))
        case "unknown":
            return str not in kinds
    raise AssertionError(how)


# --- the fuzzer ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Fuzz:
    """Counts of what became of the changes of a config."""

    values: Mapping
    workdir: epath.Path
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    seen: set = dataclasses.field(default_factory=set)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.run = parse.parse(config.Run, self.values)
        self.splits = Splits(self.run.data)
        self.full = parse.plain(self.run)

    def everything(self, *, once: bool):
        """Changes every field; `once`, of one of each dataclass alone."""
        for path, name, kind, value in fields(config.Run, self.full, "config"):
            place = (name, str(kind), str(value) if name in ("kind", "name") else "")
            if once and place in self.seen:
                continue
            self.seen.add(place)
            for how, changed in mutations(value):
                self.one(path, name, kind, value, how, changed)

    def one(self, path: str, name: str, kind, value, how: str, changed):
        """One change: parsed, planned, checked, and what is cheap to build is built."""
        self.counts["tried"] += 1
        try:
            self._try(path, changed)
        except BadInput as error:
            self.counts["refused"] += 1
            if "\n" in str(error) or not said(path, str(error)):
                self.wrong.append(f"{path} {how}: no path in {error}")
            values = _with(self.full, path.removeprefix("config."), changed)
            if (why := config_lines.misplaced(error, values)) is not None:
                self.wrong.append(f"{path} {how}: {why}")
        except Exception as error:
            self.wrong.append(f"{path} {how}: {type(error).__name__}: {error}")
        else:
            self.counts["accepted"] += 1
            if must_refuse(how, name, kind, value) and changed != value:
                self.wrong.append(f"{path} {how}: {changed!r} was accepted")

    def _line_to(self, name: str, seen: frozenset[str] = frozenset()) -> dict:
        """A stage behind all that it names: to look at all others anew takes most of the time."""
        named = set(_texts(self.full["stages"][name])) & self.run.stages.keys() - seen - {name}
        line = {}
        for other in [*self.run.needs(name), *sorted(named)]:
            line |= self._line_to(other, seen | {name})
        return {**line, name: self.run.stages[name]}

    def _try(self, path: str, changed):
        part, _, rest = path.removeprefix("config.").partition(".")
        if part != "stages" or not rest:
            first = next(iter(self.full["stages"]))
            small = {**self.full, "stages": {first: self.full["stages"][first]}}
            run = parse.parse(config.Run, _with(small, path.removeprefix("config."), changed))
            splits = self.splits if run.data == self.run.data else Splits(run.data)
            only = [next(iter(run.stages))]
        else:
            name, _, inner = rest.partition(".")
            stage = _with(self.full["stages"][name], inner, changed)
            stage = parse.parse(config.Stage, stage, f"config.stages.{name}")
            run = dataclasses.replace(
                self.run, stages={**self._line_to(name), name: stage}, reference=None
            )
            splits, only = self.splits, [name]
        pipeline.plan(run, self.workdir, splits, only=only)
        check_rows(run)
        stage = run.stages[only[0]]
        if isinstance(stage, config.Training):
            build.optimizer(stage, names=tuple)
        if getattr(stage, "encoder", None) is not None:
            with under(f"config.stages.{only[0]}"):
                stage.encoder.module(Compute())
        for views in [getattr(stage, "views", None), getattr(stage, "recipe", None)]:
            if isinstance(views, config.Views):
                inputs = splits.inputs
                inputs = inputs.sized(8) if inputs.images else inputs
                views.recipe_for(inputs, examples=splits.train)


def _texts(values) -> Iterator[str]:
    """All texts in plain values."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping | list):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _texts(value)


def said(path: str, line: str) -> bool:
    """Whether a line has the path of a field, or of one inside it, or of one that is read with it."""
    inside = path if path.startswith("config.stages.") else ".".join(path.split(".")[:2])
    inside = re.sub(r"\[0\]$", "", inside)
    return line.startswith("config.") and inside in line


def _with(values, path: str, value):
    """A copy of plain values with one of them another."""
    if not path:
        return value
    name, _, rest = re.sub(r"\[(\d+)\]", r".\1", path).partition(".")
    made = copy.copy(values)
    key = int(name) if isinstance(values, list) else name
    made[key] = _with(values[key], rest, value)
    return made


def report(fuzz: Fuzz) -> str:
    """What became of it, for a failure."""
    return "\n".join([str(dict(fuzz.counts)), f"{len(fuzz.wrong)} wrong", *fuzz.wrong[:40]])


def test_everything_has_every_dataclass():
    """What the fuzzer changes is all that a config has: found by walking the types."""
    found: set[type] = set()

    def visit(value):
        if dataclasses.is_dataclass(value):
            found.add(type(value))
            for field in dataclasses.fields(value):
                visit(getattr(value, field.name))
        elif isinstance(value, Mapping):
            for inner in value.values():
                visit(inner)
        elif isinstance(value, tuple):
            for inner in value:
                visit(inner)

    visit(parse.parse(config.Run, config_lines.EVERYTHING))
    for values in config_lines.OTHER_DATA:
        visit(parse.parse(config.Data, values))
    for values in config_lines.OTHER_ENCODERS:
        visit(parse.parse(config.Encoder, values))
    for values in config_lines.OTHER_STAGES.values():
        visit(parse.parse(config.Stage, values))
    assert found == set(explain.dataclasses_in(config.Run))


def test_every_field_in_twelve_ways(tmp_path):
    fuzz = Fuzz(config_lines.EVERYTHING, epath.Path(tmp_path))
    for name, stage in fuzz.full["stages"].items():  # as it is, everything is taken
        fuzz._try(f"config.stages.{name}.kind", stage["kind"])
    fuzz.everything(once=True)
    print(report(fuzz))
    assert not fuzz.wrong, report(fuzz)
    assert fuzz.counts["tried"] > 3000
    assert fuzz.counts["accepted"] > 100


@pytest.mark.parametrize("values", config_lines.OTHER_DATA, ids=lambda x: x["source"]["kind"])
def test_every_field_of_a_source_in_twelve_ways(values, tmp_path):
    name, stage = next(iter(config_lines.EVERYTHING["stages"].items()))
    fuzz = Fuzz({"name": "x", "data": values, "stages": {name: stage}}, epath.Path(tmp_path))
    for path, field, kind, value in fields(config.Run, fuzz.full, "config"):
        if path.startswith("config.data."):
            for how, changed in mutations(value):
                fuzz.one(path, field, kind, value, how, changed)
    assert not fuzz.wrong, report(fuzz)
    assert fuzz.counts["tried"] > 200
    assert fuzz.counts["refused"] == fuzz.counts["tried"]  # there is no such place


@pytest.mark.parametrize("values", config_lines.OTHER_ENCODERS, ids=lambda x: x["name"])
def test_every_field_of_another_encoder_in_twelve_ways(values, tmp_path):
    stage = {**config_lines.EVERYTHING["stages"]["with_sgd"], "encoder": values}
    run = {"name": "x", "data": config_lines.EVERYTHING["data"], "stages": {"net": stage}}
    fuzz = Fuzz(run, epath.Path(tmp_path))
    for path, field, kind, value in fields(config.Run, fuzz.full, "config"):
        if path.startswith("config.stages.net.encoder."):
            for how, changed in mutations(value):
                fuzz.one(path, field, kind, value, how, changed)
    assert not fuzz.wrong, report(fuzz)
    assert fuzz.counts["tried"] > 50
    assert fuzz.counts["accepted"] > 2


@pytest.mark.parametrize("part", config_lines.OTHER_STAGES)
def test_every_field_of_a_part_of_other_stages_in_twelve_ways(part, tmp_path):
    data, stage = config_lines.EVERYTHING["data"], config_lines.OTHER_STAGES[part]
    if part == "views":  # which ask for sound
        data = {"name": "tones", "source": {"function": "tests.own_tasks:spoken", "rate": 1000}}
    fuzz = Fuzz({"name": "x", "data": data, "stages": {"net": stage}}, epath.Path(tmp_path))
    for path, field, kind, value in fields(config.Run, fuzz.full, "config"):
        if path.startswith(f"config.stages.net.{part}."):
            for how, changed in mutations(value):
                fuzz.one(path, field, kind, value, how, changed)
    assert not fuzz.wrong, report(fuzz)
    assert fuzz.counts["refused"] > 20


@pytest.mark.thorough
def test_every_field_of_every_stage_in_twelve_ways(tmp_path):
    fuzz = Fuzz(config_lines.EVERYTHING, epath.Path(tmp_path))
    fuzz.everything(once=False)
    print(report(fuzz))
    assert not fuzz.wrong, report(fuzz)


@pytest.mark.thorough
@pytest.mark.parametrize("path", config_lines.FILES, ids=lambda path: path.stem)
def test_every_config_in_twelve_ways(path, tmp_path):
    values = config_lines.loaded(path)
    if "kind" in values["data"].get(
        "source", {}
    ):  # sound and text, for which digits do not stand in
        if values["data"]["source"]["kind"] == "recordings":
            pytest.skip("needs LibriSpeech")
        if "KDJAX_DATA_DIR" not in os.environ:
            pytest.skip("needs KDJAX_DATA_DIR with spoken_digit and sst2_sentences")
    elif values["data"]["name"] != "digits":  # which needs no prepared data
        values["data"] = {"name": "digits", "train_split": "train", "test_split": "test"}
    fuzz = Fuzz(values, epath.Path(tmp_path))
    fuzz.everything(once=True)
    print(path.stem, report(fuzz))
    assert not fuzz.wrong, report(fuzz)
