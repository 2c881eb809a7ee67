"""What is refused before anything runs: one fault at a time, behind trainings that would take days."""

import copy
import dataclasses
import importlib.util
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from kdjax import config, data, models, parse, pipeline, tasks, train
from kdjax.choice import choices
from kdjax.config.views.plain import EvalViews
from kdjax.contexts import Context, Splits
from kdjax.stages import cache
from kdjax.teacher_targets import source
from kdjax.types import BadInput
from tests import config_lines

LITERT = all(importlib.util.find_spec(n) for n in ("litert_converter", "ai_edge_litert"))

_TRAINING = {
    "steps": 10**9,  # nobody waits for that: what is refused is refused before it
    "batch": 16,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
_VIEWS = {"recipe": "crop_flip", "shift": 1, "flip": 0.0}
_CNN = {"name": "cnn", "widths": [4, 6]}
_STUDENT = {"kind": "distill", "cache": "cache", "encoder": _CNN, **_TRAINING}

STAGES = {
    "pretrain": {
        "kind": "pretrain",
        "encoder": _CNN,
        "projector": [8],
        "views": {"recipe": "simclr", "flip": 0.0, "blur": 0.0, "blur_kernel": 3},
        **_TRAINING,
    },
    "teacher": {"kind": "finetune", "start_from": "pretrain", "views": _VIEWS, **_TRAINING},
    "early": {
        "kind": "finetune",
        "encoder": _CNN,
        "views": _VIEWS,
        "rewind_step": 3,
        **_TRAINING,
    },
    "ticket": {
        "kind": "finetune",
        "start_from": "early",
        "views": _VIEWS,
        "prune": {"name": "ticket", "sparsity": 0.5},
        **_TRAINING,
    },
    "cache": {"kind": "cache", "teacher": "teacher", "recipe": _VIEWS, "views": 2},
    "top": {
        "kind": "cache",
        "teacher": "teacher",
        "recipe": _VIEWS,
        "views": 2,
        "signal": {"name": "top_k", "k": 3, "temperatures": [4.0]},
    },
    "embedded": {
        "kind": "cache",
        "teacher": "pretrain",
        "recipe": _VIEWS,
        "views": 2,
        "signal": {"name": "embedding"},
    },
    "student": _STUDENT,
    "live": {
        **_STUDENT,
        "live": True,
        "features": {"hint": {"name": "hint", "student": ["encoder"], "teacher": ["encoder"]}},
    },
    "sweep": {**_STUDENT, "sweep": [{"temperature": 1.0}, {"temperature": 2.0}]},
    "encoder": {"kind": "distill_encoder", "cache": "embedded", "encoder": _CNN, **_TRAINING},
    "probe": {"kind": "evaluate", "model": "encoder", "knn": {"k": 5}},
    "pruned": {
        "kind": "finetune",
        "encoder": _CNN,
        "views": _VIEWS,
        "prune": {
            "name": "gradual",
            "sparsity": 0.5,
            "begin_step": 1,
            "end_step": 9,
            "every_steps": 2,
            "pattern": {"name": "units"},
        },
        **_TRAINING,
    },
    "measured": {
        "kind": "sensitivity",
        "model": "student",
        "examples": 32,
        "numbers": [{"weights": "int8"}],
    },
    "small": {
        "kind": "shrink",
        "model": "student",
        "sparsity": 0.5,
        "sensitivity": "measured",
        "examples": 50,
    },
    "tuned": {**_STUDENT, "encoder": None, "start_from": "small"},
    "int8": {"kind": "quantize", "model": "small", "calibration_examples": 32},
    "mixed": {
        "kind": "quantize",
        "model": "student",
        "sensitivity": "measured",
        "budget": {"bytes": 1200},
        "calibration_examples": 32,
        "float_edges": False,
    },
    "aware": {**_STUDENT, "encoder": None, "start_from": "mixed"},
    "mean": {
        "kind": "own",
        "function": "tests.own_stages:Averaged",
        "reads": ["student", "tuned"],
        "leaves": "student",
        "weights": [1, 1],
    },
    "rounded": {
        "kind": "own",
        "function": "tests.own_stages:rounded",
        "reads": ["student"],
        "leaves": "student",
        "step": 0.1,
    },
    "again": {**_STUDENT, "encoder": None, "start_from": "rounded"},
    "file": {"kind": "export", "model": "int8"},
    "published": {"kind": "pretrained", "encoder": {**_CNN, "weights": "nowhere.safetensors"}},
}
"""Every kind of stage, and what they leave to one another."""

RUN = {
    "name": "check",
    "parallel": "single",
    "data": {"name": "digits", "train_split": "train[:100]", "test_split": "test[:50]"},
}


@pytest.fixture(scope="module")
def splits():
    return Splits(parse.parse(config.Data, RUN["data"]))


def _needed(stages, name):
    """A stage and what it needs alone: nothing else takes time."""
    parsed = parse.parse(config.Run, {**RUN, "stages": stages}).stages
    wanted, pending = {}, [name]
    while pending:
        here = pending.pop()
        if here not in wanted and here in stages:
            wanted[here] = None
            pending += parsed[here].needs(parsed)
            pending += [parsed[here].cache] if getattr(parsed[here], "cache", None) else []
    return {other: stages[other] for other in stages if other in wanted}


def _check(tmp_path, name, changes, splits, **run):
    """Plans and checks; whatever comes of it, nothing is there afterwards."""
    stages = {name: copy.deepcopy(stage) for name, stage in STAGES.items()}  # what they share, too
    for path, value in changes.items():
        parse.override(stages, path, repr(value))
    values = {**RUN, "stages": _needed(stages, name), **run}
    parsed = parse.parse(config.Run, values)
    workdir = epath.Path(tmp_path / "work")
    try:
        with config_lines.well_placed(parse.plain(parsed)):
            pipeline.check(parsed, pipeline.plan(parsed, workdir, splits, only=[name]), splits)
    finally:
        assert not workdir.exists()


@pytest.mark.parametrize(
    "name", ["ticket", "top", "live", "sweep", "probe", "pruned", "tuned", "aware", "file"]
)
def test_what_can_be_done_is_not_refused(tmp_path, name, splits):
    _check(tmp_path, name, {}, splits)


FAULTS = [
    # kind of the stage, the change, and the line
    ("pretrain", "pretrain.batch", 0, r"pretrain.batch: 0 is not in \[1, "),
    (
        "pretrain",
        "pretrain.views.cutout",
        9,
        r"pretrain.views.cutout: 9 pixels leave nothing of a view of 8",
    ),
    ("pretrain", "pretrain.views.shift", 8, r"pretrain.views.shift: 8 pixels leave nothing"),
    ("pretrain", "pretrain.views.blur_kernel", 17, r"pretrain.views.blur_kernel: 17 is not an odd"),
    ("pretrain", "pretrain.views.blur_kernel", 4, r"pretrain.views.blur_kernel: 4 is not 2n"),
    (
        "pretrain",
        "pretrain.encoder",
        {"name": "vgg", "depth": 8, "width": 4, "pools": 5},
        r"pretrain.encoder.pools: 5 is not in \[0, 4\]",
    ),
    (
        "pretrain",
        "pretrain.encoder",
        {"name": "vit", "width": 8, "depth": 1, "heads": 3, "mlp": 8},
        r"pretrain.encoder.heads: 3 do not divide the width of 8",
    ),
    (
        "pretrain",
        "pretrain.encoder",
        {"name": "vit", "width": 8, "depth": 1, "heads": 2, "mlp": 8, "patch": 3},
        r"config.stages.pretrain.encoder.patch",
    ),
    (
        "pretrain",
        "pretrain.method",
        {"name": "moco_v2", "queue": 50},
        r"pretrain.method.queue: 50 is no multiple of the batch, 16",
    ),
    ("pretrain", "pretrain.scale_l1", None, r"pretrain.scale_l1: expected a number"),
    ("ticket", "ticket.start_from", "cache", r"ticket.start_from: cache has no head"),
    ("ticket", "ticket.start_from", "sweep", r"ticket.start_from: sweep is a sweep of several"),
    ("teacher", "teacher.encoder", _CNN, r"teacher: give one of start_from"),
    ("teacher", "teacher.rewind_step", 10**9, r"teacher.rewind_step: 1000000000 is not in \[0"),
    (
        "teacher",
        "teacher.labels_per_class",
        50,
        r"teacher.labels_per_class: class . of digits .* give",
    ),
    (
        "teacher",
        "teacher.teacher_free",
        {"temperature": 0.0},
        r"teacher.teacher_free.temperature: 0",
    ),
    (
        "ticket",
        "ticket.start_from",
        "pruned",
        r"ticket.prune: a ticket begins from a stage that keeps",
    ),
    ("ticket", "ticket.prune.prunable", "nothing", r"ticket.prune.prunable: .*nothing"),
    ("cache", "cache.teacher", "pretrain", r"cache.teacher: pretrain has no head"),
    (
        "cache",
        "cache.teacher",
        ("teacher", "teacher"),
        r"cache.teacher: teacher stands twice",
    ),
    ("cache", "cache.recipe.cutout", 9, r"cache.recipe.cutout: 9 pixels leave nothing"),
    (
        "cache",
        "cache.weights",
        (1.0, 2.0),
        r"cache.weights: 2 for 1 teachers",
    ),
    ("top", "top.signal.k", 11, r"top.signal.k: 11 is not in 1 .. 10, the classes of the teacher"),
    (
        "embedded",
        "embedded.teacher",
        "mixed",
        r"embedded.teacher: mixed is quantized; give the float",
    ),
    (
        "embedded",
        "embedded.teacher",
        ("pretrain", "teacher"),
        r"embedded.together: embeddings have no mean; keep them apart",
    ),
    ("student", "student.cache", "embedded", r"student.cache: embedded keeps an embedding"),
    ("student", "student.cache", "teacher", r"student.cache: teacher is not a stage of kind cache"),
    ("student", "student.cache", "top", None),  # at temperature 4, which it keeps
    ("student", "student.size", 0, r"student.size: 0 is not in \[1, "),
    (
        "student",
        "student.logits",
        {"name": "multi_level", "temperatures": []},
        r"logits.temperatures: none given",
    ),
    (
        "student",
        "student.teacher_weights",
        (1.0,),
        r"student.teacher_weights: cache keeps no teachers",
    ),
    (
        "student",
        "student.optimizer.schedule",
        {"name": "cosine", "warmup_steps": 10**9},
        r"student.optimizer.schedule.warmup_steps: 1000000000 is not in \[0, steps\)",
    ),
    (
        "live",
        "live.live",
        False,
        r"live.features: no cache has features; set live=True",
    ),
    (
        "live",
        "live.features.hint.teacher",
        ("encoder/blok1",),
        r"live.features.hint.teacher: no module is called at 'encoder/blok1'",
    ),
    (
        "live",
        "live.features.hint",
        {"name": "fsp", "student": ["encoder"], "teacher": ["encoder"]},
        r"live.features.hint.student: it is of two maps",
    ),
    (
        "live",
        "live",
        {**STAGES["live"], "encoder": None, "start_from": "mixed"},
        r"live.features: a quantized model is run without its modules",
    ),
    ("live", "cache.teacher", ("teacher", "early"), r"live.features: cache has several teachers"),
    (
        "sweep",
        "sweep.prune",
        {"name": "ticket", "sparsity": 0.5},
        r"sweep.prune: a ticket begins from",
    ),
    (
        "encoder",
        "encoder.cache",
        "cache",
        r"encoder.cache: cache keeps no embedding of one teacher",
    ),
    (
        "encoder",
        "encoder.method",
        {"name": "seed", "queue": 30},
        r"encoder.method.queue: 30 rows; give a multiple of the 16",
    ),
    ("probe", "probe.knn.k", 101, r"probe.knn.k: 101 of 100 labelled examples cannot vote"),
    ("probe", "probe.model", "cache", r"probe.model: cache has no head"),
    ("probe", "probe.model", "int8", r"probe.model: int8 is quantized; give the float model"),
    (
        "probe",
        "probe.pairs",
        {"views": _VIEWS, "examples": 51},
        r"pairs.examples: 51 is not between 2",
    ),
    (
        "probe",
        "probe.pairs",
        {"views": {**_VIEWS, "cutout": 9}, "examples": 50},
        r"probe.pairs.views.cutout: 9 pixels leave nothing",
    ),
    (
        "pruned",
        "pruned.prune.end_step",
        10**9,
        r"pruned.prune.end_step: 1000000000 is not in \[0, steps\)",
    ),
    ("pruned", "pruned.prune.sparsity", None, r"pruned.prune.sparsity: missing"),
    (
        "pruned",
        "pruned.prune.pattern",
        {"name": "n_m", "n": 2, "m": 4},
        r"pruned.prune.sparsity: a pat",
    ),
    ("measured", "measured.examples", 101, r"measured.examples: 101 is not between 1 and the 100"),
    (
        "measured",
        "measured.sparsities",
        (1.5,),
        r"measured.sparsities\[0\]: 1.5 is not in \(0, 1\)",
    ),
    ("measured", "measured.against", "teacher", r"measured.cache: goes with against=teacher"),
    (
        "measured",
        "measured.model",
        "sweep",
        r"measured.model: sweep is a sweep of several students",
    ),
    (
        "measured",
        "measured.numbers",
        ({"pattern": "no"},),
        r"measured.numbers\['no'\]: matches no layer",
    ),
    ("small", "small.examples", 101, r"small.examples: 101 is not between 1 and the 100"),
    ("small", "small.sparsity", 1.0, r"small.sparsity: 1.0 is not in \[0, 1\)"),
    ("small", "small.frozen", "no", r"small.frozen: 'no' matches no group; the first is"),
    ("small", "small.frozen", "(", r"small.frozen: '\(' is no regular expression"),
    ("small", "small.budget", {"params": 5}, r"small.budget: give one of sparsity and budget"),
    ("small", "small.model", "mixed", r"small"),
    ("small", "measured.sparsities", (), r"small.sensitivity: measured has no sparsities to go by"),
    (
        "small",
        "measured.model",
        "teacher",
        r"small.sensitivity: measured is not a stage of kind sens",
    ),
    (
        "tuned",
        "tuned.size",
        16,
        r"tuned.start_from: small sees image of 8 x 8 pixels, the views",
    ),
    ("int8", "int8.model", "pretrain", r"int8.model: pretrain has no head"),
    ("int8", "int8.model", "mixed", r"int8.model: mixed is quantized already; give the float one"),
    (
        "int8",
        "int8.calibration_examples",
        101,
        r"int8.calibration_examples: 101 is not between 1 and",
    ),
    ("int8", "int8.rules", ({"pattern": "no"},), r"int8.rules\['no'\]: matches no layer"),
    ("int8", "int8.percentile", 20.0, r"int8.percentile: 20.0 is not in \(50, 100\]"),
    ("mixed", "mixed.budget.bytes", 1, r"mixed.budget: 1 cannot be met; the cheapest numbers take"),
    ("mixed", "mixed.budget.bytes", 10**6, r"mixed.budget: the model meets it in float"),
    (
        "mixed",
        "measured.numbers",
        (),
        r"mixed.sensitivity: measured is not a stage of kind sensitiv",
    ),
    (
        "aware",
        "aware.prune",
        {"name": "ticket", "sparsity": 0.5},
        r"aware.prune: a ticket begins from",
    ),
    (
        "file",
        "int8.rules",
        ({"activations": "dynamic"},),
        r"^config.stages.file.formats: in ONNX a convolution with dynamic activations \(encoder/block1/"
        r".*, 1 in all\) is several times slower than in float; export litert alone, or give the "
        r"convolutions of int8 activations='int8'$",
    ),
    (
        "mean",
        "mean.weights",
        (1,),
        r"mean.function: .*own_stages.py:\d+: ValueError: 1 weights for 2",
    ),
    (
        "mean",
        "mean.reads",
        ("student", "int8"),
        r"mean.function: .*student and int8 are not built",
    ),
    ("rounded", "rounded.step", "half", r"rounded.step: expected a number, found 'half'"),
    ("again", "again.start_from", "rounded", None),
    (
        "published",
        "published.encoder.weights",
        "gone.safetensors",
        r"published.encoder.weights: .*gone.safetensors",
    ),
    ("file", "file.model", "sweep", r"file.model: sweep is a sweep of several students"),
    ("file", "file.model", "encoder", r"file.model: encoder has no head"),
    ("file", "file.model", "probe", r"file.model: probe has no head"),
]


def _faults():
    """The first of each kind always; the others where more is asked for."""
    seen = set()
    for name, field, value, message in FAULTS:
        kind = STAGES[name]["kind"]
        marks = [pytest.mark.thorough] if kind in seen else []
        seen.add(kind)
        label = f"{name}: {field}={value!r}"[:60]
        yield pytest.param(name, field, value, message, marks=marks, id=label)


@pytest.mark.parametrize(("name", "field", "value", "message"), list(_faults()))
def test_a_fault_is_named_before_anything_runs(tmp_path, name, field, value, message, splits):
    if message is None:
        _check(tmp_path, name, {field: value}, splits)
        return
    with pytest.raises(BadInput, match=message) as caught:
        _check(tmp_path, name, {field: value}, splits)
    assert str(caught.value).startswith("config.stages.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [
        "small.examples",
        "int8.calibration_examples",
        pytest.param("measured.examples", marks=pytest.mark.thorough),
        "probe.knn.k",
        "probe.pairs",
    ],
)
def test_where_no_number_is_given_a_small_set_is_taken_whole(tmp_path, field, splits):
    """The usual number is more than there are."""
    value = None if field != "probe.pairs" else {"views": {"recipe": "eval"}}
    _check(tmp_path, field.partition(".")[0], {field: value}, splits)


@pytest.mark.parametrize(
    "changes",
    [
        {"int8.rules": ({"pattern": ".*conv.*"}, {"activations": "dynamic"})},
        pytest.param(
            {"int8.rules": ({"activations": "dynamic"},), "file.formats": ("litert",)},
            marks=pytest.mark.skipif(not LITERT, reason="needs the extra litert"),
        ),
    ],
)
def test_dynamic_activations_are_not_refused_where_they_are_fast(tmp_path, changes, splits):
    """Of a matrix product; in LiteRT."""
    _check(tmp_path, "file", {**changes, "int8.float_edges": False}, splits)


_NARROW = {"name": "cnn", "widths": [2, 2, 2, 2]}  # its last map is 1x1, of images of 8x8


@pytest.mark.parametrize(
    ("name", "changes", "norm"),
    [
        ("early", {"early.encoder": _NARROW}, "encoder/block3/norm"),
        ("pretrain", {"pretrain.encoder": _NARROW, "pretrain.method.name": "rotation"}, None),
        (
            "pretrain",
            {"pretrain.encoder": _NARROW, "pretrain.method": {"name": "moco_v2", "queue": 8}},
            "encoder/block3/norm",
        ),
        pytest.param(
            "student",
            {"student.encoder": _NARROW},
            "encoder/block3/norm",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            "sweep", {"sweep.encoder": _NARROW}, "encoder/block3/norm", marks=pytest.mark.thorough
        ),
        pytest.param(
            "ticket", {"early.encoder": _NARROW}, "encoder/block3/norm", marks=pytest.mark.thorough
        ),
        pytest.param(
            "encoder",
            {"encoder.encoder": _NARROW},
            "encoder/block3/norm",
            marks=pytest.mark.thorough,
        ),
        ("early", {}, None),
        (
            "live",
            {
                "teacher": {**STAGES["early"], "encoder": _NARROW},
                "live.encoder": {"name": "vit", "width": 8, "depth": 1, "heads": 2, "mlp": 8},
                "live.features.hint.student": ["encoder/patches"],
                "live.features.hint.teacher": ["encoder/block3"],
            },
            "norm",
        ),
    ],
)
def test_one_example_on_a_map_of_one_place_has_no_statistics(tmp_path, name, changes, norm, splits):
    for batch, accumulate in [(1, 1), (4, 4), (2, 1)]:
        parts = {f"{name}.batch": batch, f"{name}.accumulate": accumulate}
        if norm is None or batch > accumulate:
            _check(tmp_path, name, {**changes, **parts}, splits)
            continue
        field = "batch: 1," if accumulate == 1 else "accumulate: 4 parts of a batch of 4"
        line = rf"^config\.stages\.{name}\.{field}.*{norm}"
        with pytest.raises(BadInput, match=line):
            _check(tmp_path, name, {**changes, **parts}, splits)


def test_every_kind_has_faults():
    kinds = {stage["kind"] for stage in STAGES.values()}
    of_all = (kind.__dataclass_fields__["kind"].type for kind in choices(config.Stage))
    # What is trimmed is a model of texts, see test_trim.py.
    assert kinds | {"trim"} == {typing.get_args(kind)[0] for kind in of_all}
    assert kinds == {STAGES[name]["kind"] for name, *_ in FAULTS}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mean": [0.1, 0.2, 0.3]},
            r"^config.data.mean: 3 numbers for images of 1 channels; give 1",
        ),
        ({"std": [0.1, 0.2]}, r"^config.data.std: 2 numbers for images of 1 channels"),
    ],
)
def test_the_preprocessing_fits_the_images(tmp_path, changes, message):
    d = {**RUN["data"], **changes}
    with pytest.raises(BadInput, match=message):
        _check(tmp_path, "early", {}, Splits(parse.parse(config.Data, d)), data=d)


@dataclasses.dataclass(frozen=True)
class _Given(Splits):
    """Splits of arrays."""

    both: tuple[data.Dataset, data.Dataset] = ()  # pyright: ignore[reportAssignmentType]

    def _read(self, split):
        return self.both[split.startswith("test")]


def _given(train_labels, test_labels, *, classes):
    def of(labels):
        images = np.random.default_rng(0).integers(0, 255, (len(labels), 8, 8, 1), np.uint8)
        return data.from_arrays(images, np.asarray(labels), classes=classes)

    both = of(train_labels), of(test_labels)
    return _Given(parse.parse(config.Data, RUN["data"]), both=both)


@pytest.mark.parametrize("name", ["early", "student", "probe", "int8", "file"])
def test_a_test_split_without_labels(tmp_path, name):
    unlabelled = _given(np.arange(100) % 10, [0, -1, 2, -1], classes=10)
    line = r"^config.data.test_split: 2 of the 4 examples of .* name a split that has labels"
    with pytest.raises(BadInput, match=line):
        _check(tmp_path, name, {}, unlabelled)


def test_pretraining_alone_needs_no_labelled_tests(tmp_path):
    _check(tmp_path, "encoder", {}, _given(np.arange(100) % 10, [-1, -1], classes=10))


def test_a_class_that_never_occurs_is_no_hindrance(tmp_path):
    """Of 12 declared classes 10 occur: labels are counted of those, and a probe tells those apart."""
    some = _given(np.arange(100) % 10, np.arange(20) % 10, classes=12)
    own = {"early.labels_per_class": 3}
    _check(tmp_path, "early", own, some)
    assert len(some.labelled(0, config.Labels(labels_per_class=3))) == 30
    _check(tmp_path, "probe", {}, some)
    few = _given([0] * 50 + [1] * 2, [0, 1], classes=12)
    with pytest.raises(BadInput, match=r"class 1 of .* 2 examples, fewer than 3; give 2 at most"):
        _check(tmp_path, "early", own, few)
    _check(tmp_path, "early", {"early.labels_per_class": 2}, few)  # the mend
    _check(tmp_path, "early", {"early.labels_share": 0.1}, few)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "config.stages: a stage has an empty name"),
        ("../x", r"'\.\./x' is no name of a stage"),
        ("/tmp/x", "'/tmp/x' is no name of a stage"),
        (".hidden", "'.hidden' is no name"),
        ("a\\b", "is no name of a stage"),
        ("a\nb", "is no name of a stage"),
        ("a\0b", "is no name of a stage"),
        ("a ", "'a ' is no name of a stage"),
        ("a.b", "'a.b' is no name of a stage"),
        ("a,b", "'a,b' is no name of a stage"),
        ("a[0]", "is no name of a stage"),
        ("x" * 300, r"'x{20}\.\.\.' has 300 characters \(300 bytes\); 80 are the most"),
        ("語" * 80, r"80 characters \(240 bytes\); 80 are the most \(160 bytes\)"),
    ],
)
def test_a_stage_has_a_name_and_no_path(name, message):
    with pytest.raises(BadInput, match=message) as caught:
        pipeline.check_names(["teacher", name])
    assert "\n" not in str(caught.value)


def test_names_that_one_folder_would_have():
    with pytest.raises(BadInput, match=r"config.stages.Teacher: it is teacher on a file system"):
        pipeline.check_names(["teacher", "Teacher"])
    with pytest.raises(BadInput, match="capitals apart"):
        pipeline.check_names(["\u00e9t\u00e9", "E\u0301T\u00c9"])
    pipeline.check_names(["teacher", "teacher_2", "pré-training", "int8 small", "教師"])


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            7e4,
            r"^config.stages.cache.dtype: .* id 3, view 0 is as large as 7e\+04, and float16 ends at ",
        ),
        (
            np.inf,
            r"^config.stages.cache.teacher: .* id 3, view 0 is not finite; look at the training",
        ),
    ],
)
def test_what_float16_cannot_hold_is_one_line_with_its_mend(tmp_path, splits, said, line):
    """A real cache is begun, of a teacher whose logits are as large as that for one example."""
    c = parse.parse(config.Cache, STAGES["cache"])

    def say(variables, inputs):
        white = inputs["image"].mean((1, 2, 3))[:, None] > 0.99
        return source.Said(jnp.where(white, said, 1.0) * jnp.ones((1, 10)))

    inputs = splits.inputs
    task = tasks.of(splits.train)
    teacher = source.Teacher(
        {}, inputs, task, 10, None, say, dict, models.CNN((4,)), dict, quantized=False
    )

    def read(rows):  # the third one is white, all the others are black
        white = np.where(rows == 3, 255, 0).astype(np.uint8)[:, None, None, None]
        return {"image": white * np.ones((1, 8, 8, 1), np.uint8)}

    dataset = dataclasses.replace(splits.train, read=read, ids=np.arange(100, dtype=np.uint32))
    c = dataclasses.replace(c, recipe=EvalViews(recipe="eval"), batch=100)
    made = source.Source(c=c, name="cache", seed=0, dataset=dataset, teachers=(teacher,))
    run = parse.parse(config.Run, {**RUN, "stages": STAGES})
    folder = epath.Path(tmp_path)
    context = Context(run, "cache", 0, folder, {}, splits, train.choose("single"))

    ask = jax.jit(lambda batch: made.ask(made.variables, batch, context.key))
    with pytest.raises(BadInput, match=line), cache._finite(context, c, made):
        cache._write(context, c, made, ask)
    assert not (folder / "cache" / "manifest.json").exists()
