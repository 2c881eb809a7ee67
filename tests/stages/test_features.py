"""Every loss of a distilled student by hand, and what is learned for a term beside the student."""

import dataclasses
import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from kdjax import config, data, keys, losses, models, parse, pipeline, teacher, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.contexts import Context, Splits
from kdjax.distill import kd_term
from kdjax.fitting.initial_model import begin
from kdjax.load import load_config
from kdjax.teacher_targets import features, hyperparameters
from kdjax.teacher_targets.targets import targets_of
from kdjax.train import recorder
from kdjax.types import BadInput
from tests.stages.conftest import LINE, changed

BLOCKS = ["encoder/block0", "encoder/block1"]
MAPS = {"student": BLOCKS, "teacher": BLOCKS}
TERMS = {
    "hint": {"name": "hint", **MAPS, "relu": True},
    "rkd": {"name": "rkd"},
    "crd": {"name": "crd", "dim": 8, "negatives": 12},
    "attention": {"name": "attention", **MAPS},
    "similarity": {"name": "similarity"},
    "correlation": {"name": "correlation"},
    "pkt": {"name": "pkt"},
    "nst": {"name": "nst", **MAPS},
    "vid": {"name": "vid", **MAPS},
    "fsp": {
        "name": "fsp",
        "student": ["encoder/block1/conv", "encoder/block1"],
        "teacher": ["encoder/block0/conv", "encoder/block0"],
    },
    "review": {
        "name": "review",
        "student": [*BLOCKS, "encoder"],
        "teacher": [*BLOCKS, "encoder"],
    },
    "ofd": {"name": "ofd", **MAPS},
}
LEARNED = ("hint", "rkd", "crd")


def with_terms(*names, steps=4, **more):
    """Changes of the line that have its student learn features."""
    return {
        "stages__student__live": True,
        "stages__student__steps": steps,
        "stages__student__features": {name: TERMS[name] for name in names},
        **more,
    }


def logged(task, names):
    lines = recorder.read(task.folder / "metrics.jsonl")
    return {name: np.array([line[f"loss/{name}"] for line in lines]) for name in names}


@dataclasses.dataclass
class First:
    """The first batch of a student, and what both models give of it."""

    batch: dict
    student: dict
    teacher: dict
    terms: tuple
    variables: dict


def first(line, tmp, **changes) -> First:
    """By hand, but for the drawing of views: what the first step of the line's student sees."""
    run, tasks, splits = line.plan(only=["student"], **changes)
    inputs = {t.name: Artifact.open(t.folder, t.stage) for t in tasks if t.done}
    context = Context(run, "student", 0, epath.Path(tmp), inputs, splits, train.choose("single"))
    c = run.stages["student"]
    assert isinstance(c, config.Distill)
    taught = targets_of(context, c)
    start = begin(context, start_from=None, encoder=c.encoder, inputs=taught.inputs, path="here")
    terms = features.of_stage(context, c, spec=start.spec, source=taught.source)
    dataset = splits.partly_labelled(0)
    if terms:
        taught = features.teach(taught, terms, stage="student")
        key = keys.stream(context.key, "student/features")
        start = start._replace(
            variables=features.beside(start.variables, terms, key=key, examples=len(dataset))
        )
    ((_, feed),) = data.resident_feeds(
        len(dataset),
        seed=0,
        batch=c.batch,
        share=slice(0, c.batch),
        start=0,
        stop=1,
        dispatch_steps=1,
        join=taught.join or (lambda rows, epochs: {}),
    )
    resident = {**taught.resident, **data.resident_arrays(dataset)}
    feed = jax.tree.map(lambda x: x[0], feed)
    batch = jax.jit(lambda r, f: taught.views(data.take(r, f), r, context.key))(resident, feed)
    paths = [*BLOCKS, "encoder", "encoder/block0/conv", "encoder/block1/conv"]
    own = train.of_model(start.variables)
    mine = functools.partial(models.capture, start.spec.module(), paths=paths, train=True)
    seen = jax.jit(functools.partial(mine, mutable=["batch_stats"]))(own, batch["inputs"])
    spec, variables = load(inputs["teacher"], field="here")
    theirs = functools.partial(models.capture, spec.module(), paths=paths, train=False)
    asked = jax.jit(theirs)(variables, batch["inputs"])
    return First(
        batch,
        {**seen.features, "logits": seen.outputs["logits"]},
        {**asked.features, "logits": asked.outputs["logits"], "params": variables["params"]},
        terms,
        start.variables,
    )


@pytest.fixture(scope="module")
def everything(line):
    """One student that learns all terms at once."""
    return line.run(only=["student"], **with_terms(*TERMS, steps=2))["student"]


def by_hand(seen: First) -> dict:
    """The first value of each term; in one program, for op by op there are four hundred."""
    at = [[side[path] for path in BLOCKS] for side in (seen.student, seen.teacher)]
    mine, theirs = at
    pairs = list(zip(mine, theirs, strict=True))
    x, y = seen.student["encoder"], seen.teacher["encoder"]
    connectors = {}
    for term in seen.terms:
        compute = models.Compute()
        connectors |= dict(term.named(term.comparison(compute).connectors))

    def connect(name, *inputs):
        own = {
            collection: part[train.BESIDE][name]
            for collection, part in seen.variables.items()
            if name in part.get(train.BESIDE, {})
        }
        found, _ = connectors[name].apply(own, *inputs, train=True, mutable=["batch_stats"])
        return found

    def level(z):
        return z if z.ndim == 4 else z[:, None, None, :]

    vid = [connect(f"vid_{i}", z) for i, z in enumerate(mine)]
    norms = [seen.teacher["params"]["encoder"][f"block{i}"]["norm"] for i in (0, 1)]
    margins = [losses.ofd_margin(jnp.asarray(n["scale"]), jnp.asarray(n["bias"])) for n in norms]
    (crd_state,) = seen.variables[train.MEMORY].values()
    relu = jax.nn.relu
    found = {
        "hint": sum(
            losses.hint_mse(connect(f"hint_{i}", relu(s)), relu(t))
            for i, (s, t) in enumerate(pairs)
        ),
        "rkd": 25 * losses.rkd_distance(x, y) + 50 * losses.rkd_angle(x, y),
        "crd": losses.crd(
            connect("crd_0", x),
            connect("crd_1", y),
            crd_state,
            seen.batch["index"],
            seen.batch["negatives/crd"],
            temperature=0.07,
        )[0],
        "attention": sum(losses.attention_transfer(s, t) for s, t in pairs),
        "similarity": losses.similarity_preserving(x, y),
        "correlation": losses.correlation_congruence(x, y),
        "pkt": losses.pkt(x, y),
        "nst": sum(losses.nst(s, t) for s, t in pairs),
        "vid": sum(losses.vid(m, t, s) for (m, s), t in zip(vid, theirs, strict=True)),
        "fsp": losses.fsp(
            (seen.student["encoder/block1/conv"], seen.student["encoder/block1"]),
            (seen.teacher["encoder/block0/conv"], seen.teacher["encoder/block0"]),
        ),
        "review": losses.review_hcl(
            connect("review_0", [level(z) for z in [*mine, x]]), [level(z) for z in [*theirs, y]]
        ),
        "ofd": sum(
            losses.ofd(connect(f"ofd_{i}", s), t, margins[i]) / 2 ** (1 - i)
            for i, (s, t) in enumerate(pairs)
        ),
    }
    return {name: value.mean() for name, value in found.items()}


def test_each_term_is_its_function(line, everything, tmp_path):
    seen = first(line, tmp_path, **with_terms(*TERMS, steps=2))
    wanted = jax.jit(lambda: by_hand(seen))()
    found = logged(everything, TERMS)
    for name, value in wanted.items():
        assert value > 0
        np.testing.assert_allclose(found[name][0], value, rtol=2e-4, err_msg=name)
    # Every weight is that of the config: the whole is the sum of the parts.
    c = everything.stage
    whole = recorder.read(everything.folder / "metrics.jsonl")[0]
    total = c.kd_weight * whole["loss/kd"] + c.ce_weight * whole["loss/ce"]
    total += sum(term.weight * found[name][0] for name, term in c.features.items())
    np.testing.assert_allclose(whole["loss"], total, rtol=1e-4)


def test_what_is_left_is_the_student_alone(line, everything):
    """Strictly restored: no connector, no memory."""
    artifact = Artifact.open(everything.folder, everything.stage)
    spec, variables = load(artifact, field="here")
    assert set(variables) == {"params", "batch_stats"}
    assert train.BESIDE not in variables["params"]
    file = line.run(
        only=["file"],
        stages__file={"kind": "export", "model": "student", "formats": ["stablehlo"]},
        **with_terms(*TERMS, steps=2),
    )["file"]
    assert Artifact.open(file.folder, file.stage).manifest["rows"]
    assert spec.name == "cnn-4-8"


LOGITS = {
    "dkd": ({"name": "dkd", "beta": 2.0}, False),
    "dkd_teacher": ({"name": "dkd", "target": "teacher"}, True),
    "dist": ({"name": "dist", "beta": 2.0}, False),
    "mse": ({"name": "mse"}, False),
    "ce": ({"name": "ce"}, True),
    "multi_level": ({"name": "multi_level", "temperatures": [2.0, 3.0]}, False),
    "kl": ({"name": "kl"}, True),
}


def compare(c, student, wanted, label, standardized):
    """Mean over the batch of a loss of logits, by hand."""
    if standardized:
        student, wanted = losses.standardize(student), losses.standardize(wanted)
    one = functools.partial(lambda f, **given: f(student, wanted, **given))
    match c["name"]:
        case "kl":
            return one(losses.kd_kl, temperature=4.0).mean()
        case "ce":
            return one(losses.kd_ce, temperature=4.0).mean()
        case "mse":
            return one(losses.kd_mse).mean()
        case "dist":
            return one(losses.dist, beta=2.0, gamma=1.0, temperature=4.0)
        case "multi_level":
            return one(losses.multi_level_kd, temperatures=(2.0, 3.0))
        case "dkd" if c.get("target") == "teacher":
            label = jnp.where(label >= 0, label, wanted.argmax(-1))
            return losses.dkd(student, wanted, label, alpha=1.0, beta=8.0, temperature=4.0).mean()
        case "dkd":
            each = losses.dkd(student, wanted, label, alpha=1.0, beta=2.0, temperature=4.0)
            return each.sum() / (label >= 0).sum()


@pytest.fixture(scope="module")
def plain(line, tmp_path_factory):
    # With more labels than the line has: its first batch has one of them.
    more = {"data__labels_per_class": 6}
    line.run(only=["cache"], **more)
    return first(line, tmp_path_factory.mktemp("first"), **more)


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("apart", [False, True])
def test_each_loss_of_logits_is_its_function(plain, name, apart):
    """Of one teacher, and of two that are kept apart, the second of which says it all reversed."""
    c, standardized = LOGITS[name]
    signal, weights = teacher.Logits(classes=10), None
    said = [plain.teacher["logits"]]
    batch = {**plain.batch, "teacher_logits": said[0]}
    if apart:
        said.append(said[0][:, ::-1])
        signal, weights = teacher.Apart(of=signal, teachers=2), jnp.asarray([0.75, 0.25])
        batch["teacher_logits"] = jnp.stack(said, axis=1)
    term = kd_term(
        signal,
        temperature=4.0,
        loss=parse.parse(config.LogitLoss, c),
        standardize=standardized,
        teacher_weights=weights,
    )
    objective = train.weigh(
        lambda *_: ({"logits": plain.student["logits"]}, {}), {"kd": (1.0, term)}
    )
    state = train.TrainState(jnp.int32(0), {}, {}, {})
    found, _ = jax.jit(objective)({}, state, batch, jax.random.key(0))
    assert (plain.batch["label"] >= 0).sum() > 1
    one = functools.partial(compare, c, standardized=standardized)
    each = jax.jit(
        lambda label: [one(plain.student["logits"], teacher, label) for teacher in said]
    )(plain.batch["label"])
    wanted = 0.75 * each[0] + 0.25 * each[1] if apart else each[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# Parts of a batch go one after the other: a memory sees both, and each row keeps its place.
FEW = with_terms(*LEARNED, stages__student__accumulate=2)


def variables_of(task):
    return load(Artifact.open(task.folder, task.stage), field="here")[1]


@pytest.fixture(scope="module")
def alone(line):
    return line.run(only=["student"], stages__student__checkpoint_every_steps=2, **FEW)["student"]


@pytest.mark.parametrize("changes", [{"parallel": "pmap"}, {"data__mode": "stream"}])
def test_eight_devices_and_streams_learn_what_one_does(line, alone, changes):
    (mode,) = changes.values()
    other = line.copy(f"features_{mode}").run(only=["student"], **FEW, **changes)["student"]
    wanted = logged(alone, LEARNED)
    for name, values in logged(other, LEARNED).items():
        np.testing.assert_allclose(values, wanted[name], rtol=5e-4, err_msg=name)
    found, kept = variables_of(other), variables_of(alone)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-4)


def test_a_memory_goes_on_where_it_was(line, alone):
    other = line.copy("features_resumed")
    _, tasks, _ = other.plan(only=["student"], **FEW)
    saved = alone.folder / "checkpoints"
    assert [step.name for step in saved.iterdir()] == ["2"]
    shutil.copytree(saved, tasks[-1].folder / "checkpoints")
    resumed = other.run(only=["student"], **FEW)["student"]
    lines = recorder.read(resumed.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 4]
    for a, b in zip(
        jax.tree.leaves(variables_of(resumed)), jax.tree.leaves(variables_of(alone)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_pruned_and_narrow_students_learn_features(line):
    """Of the student alone: what is learned for a term is dense, and is left behind."""
    changes = with_terms("hint", steps=2)
    prune = {"name": "gradual", "sparsity": 0.5, "begin_step": 0, "end_step": 1, "every_steps": 1}
    own = {
        name.removeprefix("stages__student__"): value
        for name, value in changes.items()
        if name != "stages__student__steps"
    }
    more = dict(LINE["stages"]["student"], start_from="shrunk", steps=2, prune=prune, **own)
    more.pop("encoder")
    tasks = line.run(
        only=["more"],
        stages__student__steps=2,
        stages__shrunk={"kind": "shrink", "model": "student", "sparsity": 0.5, "examples": 0},
        stages__more=more,
    )
    artifact = Artifact.open(tasks["more"].folder, tasks["more"].stage)
    kernels = [name for name in artifact.manifest["masked"] if train.BESIDE in name]
    assert not kernels
    assert artifact.manifest["pruned"] == pytest.approx(0.5 * artifact.manifest["prunable"], abs=3)
    assert artifact.manifest["model"]["widths"]


def test_negatives_are_others_of_an_example_in_an_epoch():
    stream = keys.stream(jax.random.key(0), "negatives")

    def drawn(epoch, id, index):
        return np.asarray(
            features.negatives(
                stream,
                jnp.uint32(epoch),
                jnp.uint32(id),
                jnp.int32(index),
                count=4000,
                examples=5,
            )
        )

    found = drawn(0, 7, 2)
    assert set(found) == {0, 1, 3, 4}
    assert np.bincount(found)[[0, 1, 3, 4]].min() > 900
    np.testing.assert_array_equal(found, drawn(0, 7, 2))
    assert (found != drawn(1, 7, 2)).any()
    assert (found != drawn(0, 8, 2)).any()


def test_numbers_change_over_the_steps(line):
    """A ramp is at each step the student that has this number: nothing is learned here."""
    still = {"stages__student__optimizer": {"name": "frozen"}, "stages__student__steps": 3}
    ramp = {"begin": 1.0, "end": 3.0, "end_step": 2}
    task = line.run(
        only=["student"],
        stages__student__temperature=ramp,
        stages__student__kd_weight=ramp,
        **still,
    )["student"]
    sweep = [{"temperature": t, "kd_weight": t} for t in (1.0, 2.0, 3.0)]
    other = line.run(only=["student"], stages__student__sweep=sweep, **still)["student"]
    found = recorder.read(task.folder / "metrics.jsonl")
    wanted = recorder.read(other.folder / "metrics.jsonl")
    for i in range(3):
        for name in ("loss", "loss/kd"):
            np.testing.assert_allclose(found[i][name], wanted[i][f"{name}[{i}]"], rtol=1e-5)
        assert abs(wanted[i]["loss/kd[0]"] - wanted[i]["loss/kd[2]"]) > 1e-4


def test_weights_of_teachers_change_over_the_steps():
    values = changed(
        LINE,
        stages__cache__teacher=["teacher", "pretrain"],
        stages__cache__together="apart",
        stages__student__steps=11,
        stages__student__teacher_weights=[{"begin": 0.0, "end": 3.0, "end_step": 10}, 1.0],
    )
    stages = parse.parse(config.Run, values).stages
    shares = hyperparameters.teacher_shares(stages["student"], stages["cache"], "here")
    for step, wanted in ((0, 0.0), (5, 0.6), (10, 0.75)):
        first, second = (float(train.at(share, jnp.int32(step))) for share in shares)
        assert (first, second) == pytest.approx((wanted, 1.0 - wanted))


TOP_K = {"name": "top_k", "k": 3, "temperatures": [4.0]}
BLOCK = BLOCKS[:1]
BAD_TERMS = [
    ("ce", {"name": "rkd"}, ": give it a name"),
    (
        "a",
        {"name": "hint", "student": ["encoder/block7"], "teacher": BLOCK},
        r"\.student: no module is called at 'encoder/block7'; the nearest",
    ),
    (
        "a",
        {"name": "hint", "student": BLOCKS, "teacher": BLOCK},
        r"\.teacher: 1 paths for 2 of the student",
    ),
    (
        "a",
        {"name": "nst", "student": ["encoder"], "teacher": ["encoder"]},
        r"\.student: nst compares maps",
    ),
    ("a", {"name": "fsp", **MAPS}, r"\.student: fsp compares maps of as many channels"),
    (
        "a",
        {"name": "ofd", "student": BLOCK, "teacher": ["encoder/block0/conv"]},
        r"\.teacher: encoder/block0/conv is not a convolution with its BatchNorm",
    ),
    (
        "a",
        {"name": "ofd", "student": BLOCK, "teacher": BLOCKS[1:]},
        r"\.student: ofd compares maps of one size",
    ),
    (
        "a",
        {"name": "hint", "student": BLOCK, "teacher": ["encoder"]},
        r"\.student: hint cannot bring",
    ),
    (
        "a",
        {"name": "rkd", "weight": {"begin": 0.0, "end": 1.0, "end_step": 0}},
        r"\.weight\.end_step: 0 is not in",
    ),
]
AT = r"config\.stages\.student\."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages__student__logits": {"name": "dist"}}, AT + "logits: dist needs all logits, and"),
        ({"stages__student__standardize": True}, AT + "standardize: it needs all logits"),
        (
            {"stages__student__temperature": {"begin": 4.0, "end": 2.0}},
            AT + "temperature: cache keeps the tail of a top k at fixed temperatures",
        ),
    ],
)
def test_a_top_k_is_not_all_logits(line, changes, said):
    with pytest.raises(BadInput, match=said):
        line.run(only=["student"], stages__cache__signal=TOP_K, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (with_terms("rkd", stages__student__live=False), "features: no cache has features; set"),
        (
            with_terms("rkd", stages__student__sweep=[{"kd_weight": 1.0}]),
            "sweep: not with features",
        ),
        (
            with_terms("rkd", stages__student__temperature={"begin": 0.0, "end": 1.0}),
            r"temperature.begin: 0.0 is not in \(0, inf\)",
        ),
        (
            with_terms("hint", stages__student__size=2),
            r"features\.hint\.student: a map of 2 x 2 is neither half of the teacher's 8 x 8",
        ),
        (
            with_terms("crd", stages__cache__mix={"name": "mixup"}),
            r"features\.crd\.name: crd has a memory of each example, and cache mixes two",
        ),
        *(
            (
                {"stages__student__live": True, "stages__student__features": {name: term}},
                rf"features\.{name}{said}",
            )
            for name, term, said in BAD_TERMS
        ),
    ],
)
def test_bad_features(line, changes, said):
    with pytest.raises(BadInput, match=AT + said) as error:
        line.run(only=["student"], **changes)
    assert "\n" not in str(error.value)


def test_a_quantized_student_has_no_features(line):
    stages = {
        "stages__student__steps": 2,
        "stages__int8": {"kind": "quantize", "model": "student", "agreement": 0.0},
        "stages__aware": {
            **{name: x for name, x in LINE["stages"]["student"].items() if name != "encoder"},
            "start_from": "int8",
            "live": True,
            "features": {"rkd": TERMS["rkd"]},
        },
    }
    with pytest.raises(BadInput, match=r"aware\.features: a quantized model is run without its"):
        line.run(only=["aware"], **stages)


FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "kd"
# The others are the table's student with another term, whose first step is compared above.
CONFIGS = ("assistant", "fsp", "seed", "teacher_free", "born_again", "compress", "teachers")
IN_SHORT = ("fsp",)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("kd"))


def runlocal(name):
    run = load_config(f"{FOLDER / name}.py:runlocal", ["parallel=single"])
    return run, Splits(run.data)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")  # on features of two steps
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.thorough)
        for name in CONFIGS
    ],
)
def test_configs_go_through(workdir, name):
    run, splits = runlocal(name)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.execute(run, tasks, splits)
    assert all(task.done for task in tasks)


@pytest.mark.parametrize("name", ["seed", "teacher_free"])
def test_configs_are_gone_through_ahead(tmp_path, name):
    """Every stage once, as far as shapes tell: each kind of stage is run elsewhere."""
    run, splits = runlocal(name)
    tasks = pipeline.plan(run, epath.Path(tmp_path), splits)
    assert pipeline.check(run, tasks, splits) == tasks


def test_the_students_of_the_table_are_those_of_their_configs():
    table = load_config(f"{FOLDER / 'table'}.py").stages
    own = {"kd": "kl"} | {name: name for name in ("dkd", "dist", "standardized", "fitnet")}
    own |= {name: name for name in ("rkd", "crd", "review")}
    for name, file in own.items():
        assert load_config(f"{FOLDER / file}.py").stages["student"] == table[name]
