"""`kdjax.parse`, with the dataclasses of `kdjax.config` as its schema."""

import copy
import dataclasses
import json
import pathlib
from typing import Literal

import pytest

from kdjax import config, load
from kdjax.config import optimizers
from kdjax.config.encoders import cnn
from kdjax.config.views.crop_flip import CropFlipViews
from kdjax.config.views.simclr import SimCLRViews
from kdjax.parse import override, parse, parse_arg, plain
from kdjax.spelling import suggestion
from kdjax.types import BadInput

SGD = {"name": "sgd", "learning_rate": 0.1}
CNN = {"name": "cnn", "widths": [4, 8]}
SIMCLR = {"recipe": "simclr"}
PRETRAIN = {
    "kind": "pretrain",
    "encoder": CNN,
    "views": SIMCLR,
    "method": {"name": "simclr"},
    "steps": 10,
    "batch": 4,
    "optimizer": SGD,
}
EXPORT = {"kind": "export", "model": "student"}
RUN = {"name": "mine", "data": {"name": "digits"}, "stages": {"first": PRETRAIN, "files": EXPORT}}


def _with(path, value):
    """The values of a run with one of them changed, by its path; `...` takes it away."""
    values = copy.deepcopy(RUN)
    *parents, last = path.split(".")
    inner = values
    for name in parents:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return values


def test_a_run_is_built_and_its_defaults_are_those_of_the_fields():
    run = parse(config.Run, RUN)
    assert run.data == config.Data(name="digits")
    assert list(run.stages) == ["first", "files"]
    assert run.stages["first"] == config.Pretrain(
        kind="pretrain",
        encoder=cnn.CNN(name="cnn", widths=(4, 8)),
        views=SimCLRViews(recipe="simclr"),
        steps=10,
        batch=4,
        optimizer=optimizers.SGD(name="sgd", learning_rate=0.1),
    )
    assert run.seeds == (0,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.name = "other"


STAGE = "config.stages.first"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        # Unknown: the nearest name, or all of them.
        ("dta", {}, "config.dta: unknown field; did you mean data?"),
        (
            "data.trian_split",
            "x",
            "config.data.trian_split: unknown field; did you mean train_split?",
        ),
        ("stages.first.stps", 1, f"{STAGE}.stps: unknown field; did you mean steps?"),
        (
            "stages.first.optimizer.lerning_rate",
            1,
            f"{STAGE}.optimizer.lerning_rate: unknown field; did you mean learning_rate?",
        ),
        (
            "stages.files.qqq",
            1,
            "config.stages.files.qqq: unknown field; known: seed, kind, model, formats, ",
        ),
        ("stages.first.encoder.depth", 20, f"{STAGE}.encoder.depth: unknown field"),
        # Missing.
        ("name", ..., "config.name: missing; it takes a text"),
        ("data.name", ..., "config.data.name: missing; it takes a text"),
        ("stages.first.steps", ..., f"{STAGE}.steps: missing; it takes an integer"),
        (
            "stages.first.encoder.widths",
            ...,
            f"{STAGE}.encoder.widths: missing; it takes a list of",
        ),
        (
            "stages.first.encoder",
            ...,
            f"{STAGE}.encoder: missing; it takes BagOfEmbeddings or BERT or DistilBERT",
        ),
        (
            "stages.first.optimizer.learning_rate",
            ...,
            f"{STAGE}.optimizer.learning_rate: missing; it",
        ),
        # Tags of unions.
        (
            "stages.first.kind",
            ...,
            f"{STAGE}.kind: missing; it is one of cache, distill, distill_encoder, ",
        ),
        (
            "stages.first.kind",
            "distil",
            f"{STAGE}.kind: 'distil' is not one of cache, distill, distill_encoder, ",
        ),
        ("stages.first.kind", ["pretrain"], f"{STAGE}.kind: ['pretrain'] is not one of cache, "),
        (
            "stages.first.optimizer.name",
            "adam",
            f"{STAGE}.optimizer.name: 'adam' is not one of sgd, ",
        ),
        (
            "stages.first.encoder.name",
            ...,
            f"{STAGE}.encoder.name: missing; it is one of bag_of_embeddings, bert",
        ),
        (
            "stages.first.views.recipe",
            3,
            f"{STAGE}.views.recipe: 3 is not one of crop_flip, masked_tokens, eval, simclr",
        ),
        (
            "stages.first.views",
            "simclr",
            f"{STAGE}.views: expected fields, with 'recipe' among them, ",
        ),
        (
            "stages.first",
            None,
            f"{STAGE}: expected fields, with 'kind' among them, found None (NoneT",
        ),
        # Choices.
        (
            "parallel",
            "pmpa",
            "config.parallel: 'pmpa' is not one of auto, single, pmap, mesh; did you",
        ),
        ("parallel", True, "config.parallel: True is not one of auto, single, pmap, mesh"),
        (
            "stages.files.formats",
            ["onnx", "onxx"],
            "config.stages.files.formats[1]: 'onxx' is not one",
        ),
        # Types.
        ("name", 3, "config.name: expected a text, found 3 (int)"),
        ("name", None, "config.name: expected a text, found None (NoneType)"),
        ("data", "digits", "config.data: expected the fields of Data, found 'digits' (str)"),
        ("stages", None, "config.stages: expected fields, found None (NoneType)"),
        ("stages", {1: EXPORT}, "config.stages: expected a text, found 1 (int)"),
        ("stages.first.steps", 10.0, f"{STAGE}.steps: expected an integer, found 10.0 (float)"),
        ("stages.first.steps", "10", f"{STAGE}.steps: expected an integer, found '10' (str)"),
        ("stages.first.steps", True, f"{STAGE}.steps: expected an integer, found True (bool)"),
        ("stages.first.ema", False, f"{STAGE}.ema: expected a number, found False (bool)"),
        (
            "stages.first.method.temperature",
            None,
            f"{STAGE}.method.temperature: expected a number, found None",
        ),
        (
            "stages.first.method.temperature",
            float("nan"),
            f"{STAGE}.method.temperature: nan is not a finite numb",
        ),
        (
            "stages.first.method.temperature",
            -float("inf"),
            f"{STAGE}.method.temperature: -inf is not a finite nu",
        ),
        (
            "stages.first.optimizer.nesterov",
            1,
            f"{STAGE}.optimizer.nesterov: expected True or False,",
        ),
        # Lists.
        ("seeds", 3, "config.seeds: expected a list of integers, found 3 (int)"),
        ("seeds", [0, "1"], "config.seeds[1]: expected an integer, found '1' (str)"),
        ("stages.first.encoder.widths", "48", f"{STAGE}.encoder.widths: expected a list of"),
        ("data.mean", [0.5, True], "config.data.mean[1]: expected a number, found True (bool)"),
        (
            "stages.first.views.crop_scale",
            [0.5],
            f"{STAGE}.views.crop_scale: expected 2 values, found",
        ),
        (
            "stages.first.views.crop_scale",
            0.5,
            f"{STAGE}.views.crop_scale: expected a list of numbers",
        ),
        (
            "stages.first.views.crop_scale",
            [0.5, "1"],
            f"{STAGE}.views.crop_scale[1]: expected a number",
        ),
    ],
)
def test_a_fault_is_one_line_that_begins_with_its_path(path, value, line):
    with pytest.raises(BadInput) as caught:
        parse(config.Run, _with(path, value))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_choices_are_listed_once():
    with pytest.raises(BadInput) as caught:
        parse(config.Run, _with("parallel", "zzz"))
    assert str(caught.value) == "config.parallel: 'zzz' is not one of auto, single, pmap, mesh"


@pytest.mark.parametrize("values", [None, 3, "run", [RUN]])
def test_what_is_no_run_at_all(values):
    with pytest.raises(BadInput, match=r"^config: expected the fields of Run, found"):
        parse(config.Run, values)


def test_integers_are_numbers_and_lists_are_tuples():
    run = parse(config.Run, _with("stages.first.method.temperature", 1))
    assert repr(run.stages["first"].method.temperature) == "1.0"
    run = parse(config.Run, _with("stages.first.views.crop_ratio", (1, 2)))
    assert repr(run.stages["first"].views.crop_ratio) == "(1.0, 2.0)"
    run = parse(config.Run, _with("stages.first.projector", []))
    assert run.stages["first"].projector == ()


@pytest.mark.parametrize(("kind", "value"), [(Literal[1, 2], True), (Literal[True], 1)])
def test_a_choice_of_numbers_is_no_choice_of_truths(kind, value):
    with pytest.raises(BadInput, match=rf"^config: {value} is not one of"):
        parse(kind, value)


def test_none_is_a_value_where_the_field_says_so():
    run = parse(config.Run, _with("stages.first.ema", None))
    assert run.stages["first"].ema is None
    crop = {"recipe": "crop_flip", "crop_scale": None}
    run = parse(config.Run, _with("stages.first.views", crop))
    assert run.stages["first"].views == CropFlipViews(recipe="crop_flip")


def test_another_root_is_named_in_the_path():
    with pytest.raises(BadInput, match=r"^row\.widths: missing"):
        parse(cnn.CNN, {"name": "cnn"}, "row")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("stpes", ["steps", "batch"], "did you mean steps?"),
        ("qqq", ["steps", "batch"], "known: steps, batch"),
        (3, [1, 2], "known: 1, 2"),
        ("a", {"a1": 0}, "did you mean a1?"),
    ],
)
def test_suggestion(name, known, hint):
    assert suggestion(name, known) == hint


# --- the argument of a config file ----------------------------------------------------------------

DEFAULTS = {"labels": 5, "sparsity": 0.9, "runlocal": False, "student": "cnn"}


@pytest.mark.parametrize(
    ("arg", "changes"),
    [
        (None, {}),
        ("", {}),
        ("runlocal", {"runlocal": True}),
        ("runlocal=true,labels=10", {"runlocal": True, "labels": 10}),
        ("runlocal=False", {}),
        ("sparsity=1", {"sparsity": 1.0}),
        ("sparsity=5e-1,student=resnet18", {"sparsity": 0.5, "student": "resnet18"}),
        ("labels=-1,", {"labels": -1}),
        ("student=a=b", {"student": "a=b"}),
        ("labels=1,labels=2", {"labels": 2}),
    ],
)
def test_parse_arg(arg, changes):
    before = dict(DEFAULTS)
    found = parse_arg(arg, **DEFAULTS)
    assert found == {**DEFAULTS, **changes}
    assert [type(value) for value in found.values()] == [int, float, bool, str]
    assert before == DEFAULTS


@pytest.mark.parametrize(
    ("arg", "line"),
    [
        ("label=3", "label: unknown argument; did you mean labels?"),
        ("zzz", "zzz: unknown argument; known: labels, sparsity, runlocal, student"),
        ("labels=ten", "labels: 'ten' is not an integer"),
        ("labels=1.5", "labels: '1.5' is not an integer"),
        ("labels", "labels: '' is not an integer"),
        ("sparsity=x", "sparsity: 'x' is not a number"),
        ("runlocal=yes", "runlocal: 'yes' is not True or False"),
    ],
)
def test_parse_arg_names_the_fault(arg, line):
    with pytest.raises(BadInput) as caught:
        parse_arg(arg, **DEFAULTS)
    assert str(caught.value) == line


def test_an_argument_of_a_config_file_is_named_as_it_was_written(tmp_path):
    """By the file and the argument, wherever in the file's function it is refused."""
    file = tmp_path / "line.py"
    file.write_text(
        "from kdjax.parse import parse_arg\n"
        "def get_config(arg=None):\n"
        "    return parse_arg(arg, labels=10)\n"
    )
    with pytest.raises(BadInput) as caught:
        load.load_config(f"{file}:labels=ten")
    assert str(caught.value) == f"--config={file}:labels: 'ten' is not an integer"


# --- overrides ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500", 500),
        ("-3", -3),
        ("1e-3", 0.001),
        ("True", True),
        ("true", True),
        ("FALSE", False),
        ("None", None),
        ("none", None),
        ("[1, 2]", [1, 2]),
        ("0,1", (0, 1)),
        ("'12'", "12"),
        ("{'name': 'cosine'}", {"name": "cosine"}),
        # Whatever is no literal is a text.
        ("", ""),
        ("resnet18", "resnet18"),
        ("cifar100:3.0.2", "cifar100:3.0.2"),
        ("train[:80%]", "train[:80%]"),
        (".*/kernel", ".*/kernel"),
        (r"block\d+/kernel", r"block\d+/kernel"),
        ("/data/tfds", "/data/tfds"),
        ("gs://bucket/x", "gs://bucket/x"),
        ("a=b", "a=b"),
        ("f(x)", "f(x)"),
        ("{[1]: 2}", "{[1]: 2}"),
        ("007", "007"),
    ],
)
def test_override_reads_literals(text, value):
    values = {"data": {"name": "digits"}}
    override(values, "data.name", text)
    assert values == {"data": {"name": value}}
    assert type(values["data"]["name"]) is type(value)


def test_override_makes_the_fields_that_the_file_leaves_at_their_defaults():
    values = copy.deepcopy(RUN)
    override(values, "stages.first.optimizer.schedule.name", "constant")
    override(values, "stages.first.steps", "500")
    override(values, "seeds", "[1, 2]")
    run = parse(config.Run, values)
    assert run.stages["first"].optimizer.schedule == optimizers.Constant(name="constant")
    assert (run.stages["first"].steps, run.seeds) == (500, (1, 2))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name.first", "config.name: has no field 'first'"),
        ("stages.first.steps.x", "config.stages.first.steps: has no field 'x'"),
        (
            "stages.first.encoder.widths.x.y",
            "config.stages.first.encoder.widths: has no field 'x'; it is a list, whose items are "
            "config.stages.first.encoder.widths.0 and on",
        ),
        (
            "stages.first.encoder.widths.2",
            "config.stages.first.encoder.widths.2: there are 2 items, of which the first is "
            "config.stages.first.encoder.widths.0; give the whole list to change their number",
        ),
    ],
)
def test_override_of_what_has_no_fields(path, line):
    values = copy.deepcopy(RUN)
    with pytest.raises(BadInput) as caught:
        override(values, path, "1")
    assert str(caught.value) == line
    assert values == RUN


def test_an_override_of_an_unknown_field_is_named_by_parse():
    values = copy.deepcopy(RUN)
    override(values, "stages.frist.steps", "3")
    with pytest.raises(BadInput, match=r"^config\.stages\.frist\.kind: missing"):
        parse(config.Run, values)


# --- and back -------------------------------------------------------------------------------------

FULL = {
    **RUN,
    "stages": {
        "first": PRETRAIN,
        "teacher": {
            "kind": "finetune",
            "start_from": "first",
            "views": {"recipe": "crop_flip", "crop_scale": [0.5, 1]},
            "steps": 5,
            "batch": 2,
            "optimizer": {"name": "lars", "learning_rate": 1, "clip_norm": 0.5},
            "ema": 0.99,
        },
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": {"recipe": "eval"}, "views": 2},
        "student": {
            "kind": "distill",
            "cache": "cache",
            "encoder": {"name": "cifar_resnet", "depth": 20},
            "steps": 5,
            "batch": 2,
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "schedule": {"name": "stairs", "at_steps": [2, 4]},
            },
            "prune": {
                "name": "gradual",
                "sparsity": 0.5,
                "begin_step": 0,
                "end_step": 3,
                "every_steps": 1,
                "allocation": [[".*/kernel", 0.5]],
                "pattern": {"name": "blocks", "shape": [2, 2]},
            },
        },
        "int8": {"kind": "quantize", "model": "student", "rules": [{"pattern": ".*/kernel"}]},
        "files": {**EXPORT, "formats": ["onnx"]},
    },
}


def test_a_whole_run_goes_to_json_and_back():
    run = parse(config.Run, FULL)
    values = json.loads(json.dumps(plain(run)))
    assert values == plain(run)
    assert parse(config.Run, values) == run
    assert list(values["stages"]) == list(FULL["stages"])
    assert values["stages"]["student"]["optimizer"]["schedule"]["at_steps"] == [2, 4]
    # Every default is written out.
    assert values["stages"]["int8"]["percentile"] == 99.99


CONFIGS = sorted(
    path
    for path in (pathlib.Path(__file__).parents[1] / "configs").glob("**/*.py")
    if "def get_config" in path.read_text()  # not what configs in a folder share
)


MORE_ARGS = {
    "digits": ["label_free", "pruning", "quantization"],
    "cifar100_kd": ["table", "live", "k=10", "short"],
    "distilbert": ["full"],
}


@pytest.mark.parametrize(
    ("path", "arg"),
    [
        pytest.param(path, arg, id=f"{path.stem}-{arg}")
        for path in CONFIGS
        for arg in (None, "runlocal", *MORE_ARGS.get(path.stem, ()))
    ],
)
def test_every_config_of_the_repository_parses_and_goes_to_json_and_back(path, arg):
    run = load.load_config(f"{path}:{arg}" if arg else str(path))
    assert parse(config.Run, json.loads(json.dumps(plain(run)))) == run


def _asides(kind):
    return {f.name for f in dataclasses.fields(kind) if not f.metadata.get("fingerprint", True)}


def test_a_fingerprint_leaves_out_where_and_how():
    run = parse(config.Run, FULL)
    marked = plain(run, fingerprint=True)
    assert _asides(config.Run) == {
        "parallel",
        "convolutions",
        "reference",
        "latency_batch",
        "latency_bulk_batch",
        "latency_threads",
        "latency_seconds",
    }
    assert _asides(config.Data) == {"data_dir", "mode", "resident_bytes"}
    assert _asides(config.Pretrain) == {
        "checkpoint_every_steps",
        "log_every_steps",
        "dispatch_steps",
        "seed",  # as it stands: the seed that a stage is run for is told beside it
    }
    assert _asides(config.Cache) == {"batch", "seed"}
    for found, kind in [
        (marked, config.Run),
        (marked["data"], config.Data),
        *((marked["stages"][name], type(stage)) for name, stage in run.stages.items()),
    ]:
        assert set(found) == {f.name for f in dataclasses.fields(kind)} - _asides(kind)


def test_only_what_is_computed_changes_a_fingerprint():
    def marked(path, value):
        return plain(parse(config.Run, _with(path, value)), fingerprint=True)

    before = plain(parse(config.Run, RUN), fingerprint=True)
    for path, value in [
        ("parallel", "mesh"),
        ("data.data_dir", "/elsewhere"),
        ("data.mode", "stream"),
        ("stages.first.log_every_steps", 7),
    ]:
        assert marked(path, value) == before
    for path, value in [
        ("data.name", "cifar100"),
        ("stages.first.batch", 8),
        ("stages.first.optimizer.momentum", 0.8),
        ("stages.first.dtype", "bfloat16"),
        ("seeds", [1]),
    ]:
        assert marked(path, value) != before


def test_a_number_or_its_ramp():
    @dataclasses.dataclass(frozen=True)
    class Holder:
        number: config.Number

    assert parse(Holder, {"number": 2}).number == 2.0
    ramp = parse(Holder, {"number": {"begin": 0, "end": 1}}).number
    assert ramp == config.Ramp(begin=0.0, end=1.0)
    with pytest.raises(BadInput, match=r"config.number.begin: missing; it takes a number"):
        parse(Holder, {"number": {"end": 1}})
    with pytest.raises(BadInput, match=r"config.number: expected a number or Ramp, found 'x'"):
        parse(Holder, {"number": "x"})
