"""Masked language models as any other model: taught, cached, distilled, measured, in a file."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from kdjax import config, data, parse, pipeline, tasks, train
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.contexts import Context, Splits
from kdjax.export import load_onnx
from kdjax.fitting.initial_model import begin
from kdjax.teacher_targets import audit
from kdjax.teacher_targets.targets import targets_of
from kdjax.types import BadInput
from tests.sentence_tables import BAD, BERT, GOOD, PLAIN, TRAINED, training

pytest.importorskip("tokenizers", reason="tokenizers is not installed")

VIEWS = {"recipe": "masked_tokens", "share": 0.3}
TEACHER = {**BERT, "pool": "none", "dropout": 0.0, "attention_dropout": 0.0}
STUDENT = {**TEACHER, "depth": 1, "types": 0}


def lines(folder, n=160):
    """Films and what they are like: a word says which one follows."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    words = (*GOOD, *BAD)
    for split, count in (("train", n), ("test", 6)):
        texts = []
        for _ in range(count):
            i = random.integers(len(words))
            texts.append(f"a {words[i]} film and {PLAIN[i]} {words[(i + 1) % len(words)]}")
        (folder / f"{split}.txt").write_text("\n".join(texts) + "\n")
    source = {"kind": "lines", "root": str(folder), "tokenizer": TRAINED, "max_length": 12}
    return {"name": "films", "source": source, "target": {"kind": "tokens"}}


def run_of(folder, **stages):
    run = {"name": "films", "data": lines(folder), "parallel": "single", "stages": stages}
    return parse.parse(config.Run, run)


def planned(run, folder):
    splits = Splits(run.data)
    found = pipeline.plan(run, epath.Path(folder), splits)
    pipeline.check(run, found, splits)
    return found, splits


def line(**student):
    taught = {"kind": "distill", "cache": "cache", "encoder": STUDENT, **training(60)}
    return {
        "teacher": {"kind": "finetune", "encoder": TEACHER, "views": VIEWS, **training(100)},
        "cache": {
            "kind": "cache",
            "teacher": "teacher",
            "recipe": VIEWS,
            "views": 2,
            "dtype": "float32",
            "signal": {"name": "top_k", "k": 5, "temperatures": [2.0]},
        },
        "student": {**taught, "temperature": 2.0, "kd_weight": 5.0, "ce_weight": 2.0, **student},
    }


def left(folder, **stages):
    """The run of these stages, what they leave, and the data; what is there already is not done again."""
    run = run_of(folder / "texts", **stages)
    splits = Splits(run.data)
    found = pipeline.plan(run, epath.Path(folder / "run"), splits, only=[*stages])
    pipeline.check(run, found, splits)
    pipeline.execute(run, found, splits)
    return run, {task.name: Artifact.open(task.folder, task.stage) for task in found}, splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def done(folder):
    """A teacher, its cache, and a student of it."""
    return left(folder, **line())


@pytest.fixture(scope="module")
def more(done, folder):
    """Beside them a cache of hidden tokens alone, and the student's file."""
    pytest.importorskip("jax2onnx", reason="the extra export is not installed")
    signal = {**line()["cache"]["signal"], "at": "hidden"}
    return left(
        folder,
        **line(),
        at_hidden={**line()["cache"], "signal": signal},
        file={"kind": "export", "model": "student", "formats": ["onnx"]},
    )


def test_labels_are_the_tokens_and_a_test_has_each_of_them_hidden_once(tmp_path):
    splits = Splits(run_of(tmp_path / "texts", **line()).data)
    tokens, labels = splits._whole.inputs()["tokens"], splits._whole.labels
    field = splits.train.fields["tokens"]
    said = labels >= 0
    np.testing.assert_array_equal(labels[said], tokens[said])
    assert not np.isin(labels[said], field.frame).any()
    inside = np.arange(12)[None] < splits._whole.lengths["tokens"][:, None]
    assert (~said & inside).sum(1).min() == 2  # what begins and ends a text has no label
    assert len(splits.train) == 160

    test = splits.test
    hidden = test.inputs()["tokens"] == field.mask
    assert (hidden.sum(1) == 1).all()
    assert ((test.labels >= 0) == hidden).all()
    whole = np.where(hidden, test.labels, test.inputs()["tokens"])
    texts, copies = np.unique(whole, axis=0, return_counts=True)
    lengths = (texts != 0).sum(1)
    assert (copies % (lengths - 2) == 0).all()  # a text may be there twice
    assert copies.sum() == len(test) == len(np.unique(test.ids))


def test_a_text_that_is_tested_on_hides_nothing_itself(tmp_path):
    """Of two hidden tokens the first would be looked at, whichever was asked about."""
    run = run_of(tmp_path / "texts", **line())
    (tmp_path / "texts" / "test.txt").write_text("a warm film\na [MASK] film\n")
    wrong = r"^config.data.target.kind: text [01] of .* has the token for a hidden one itself"
    with pytest.raises(BadInput, match=wrong):
        _ = Splits(run.data).test


def test_the_pseudo_perplexity_is_that_of_each_token_by_hand():
    """Three tokens in two texts, whose softmaxes are 1/2, 1/4 and 1/8: exp of the mean of their logs."""
    task = tasks.MaskedLM(classes=4, positions=5, mask=0)
    shares = [[0.25, 0.5, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25], [0.5, 0.125, 0.125, 0.25]]
    logits = np.log(np.asarray(shares, np.float32)) + np.float32(3.0)
    said = np.full((3, 5), -1, np.int32)
    for row, (place, token) in enumerate(((1, 1), (3, 2), (2, 1))):
        said[row, place] = token
    found = task.scores(logits[:, None], said)
    assert found["pseudo_perplexity"].value == pytest.approx((2 * 4 * 8) ** (1 / 3), rel=1e-6)
    assert found["accuracy"].value == pytest.approx(1 / 3)
    assert not found["pseudo_perplexity"].higher_is_better


def test_a_student_of_a_masked_language_model_is_scored_by_each_token_of_its_texts(done):
    _, artifacts, splits = done
    rows = {name: artifacts[name].manifest["rows"][0] for name in ("teacher", "student")}
    classes = splits.train.target.classes
    for name, row in rows.items():
        assert row["primary"] == "pseudo_perplexity"
        found = row["scores"]["pseudo_perplexity"]
        assert not found["higher_is_better"]
        spec, variables = load(artifacts[name], field="here")
        given = jax.tree.map(jnp.asarray, {**splits.test_inputs})
        outputs = jax.jit(functools.partial(spec.module().apply, train=False))(variables, given)
        logits = np.asarray(outputs["logits"], np.float64)
        at, said = np.nonzero(splits.test.labels >= 0)
        logits = logits[at, said]
        of = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
        of -= logits[np.arange(len(at)), splits.test.labels[at, said]]
        np.testing.assert_allclose(found["value"], np.exp(of.mean()), rtol=1e-5)
    assert rows["teacher"]["scores"]["pseudo_perplexity"]["value"] < 0.2 * classes
    assert rows["student"]["scores"]["pseudo_perplexity"]["value"] < 0.5 * classes


@pytest.mark.thorough
def test_a_file_answers_at_all_tokens_and_is_measured_at_the_hidden_one(more):
    _, artifacts, splits = more
    manifest = artifacts["file"].manifest
    (row,), (parity,) = manifest["rows"], manifest["parity"]
    live = artifacts["student"].manifest["rows"][0]["scores"]
    for name, score in row["scores"].items():
        np.testing.assert_allclose(score["value"], live[name]["value"], rtol=1e-4)
    assert parity["agreement"] == 1.0
    run = load_onnx(artifacts["file"].folder / "student.onnx", threads=1)
    inputs = {name: x[:3] for name, x in splits.test_inputs.items()}
    assert np.asarray(run(*inputs.values())).shape == (3, 12, splits.train.target.classes)


@pytest.mark.parametrize(
    ("cache", "at"),
    [
        ("cache", "all"),
        pytest.param("cache", "hidden", marks=pytest.mark.thorough),
        pytest.param("at_hidden", "all", marks=pytest.mark.thorough),
    ],
)
def test_what_is_cached_at_each_position_is_what_the_teacher_says_live(request, cache, at):
    run, artifacts, splits = request.getfixturevalue("done" if cache == "cache" else "more")
    found = []
    for live in (False, True):
        c = parse.parse(
            config.Stage,
            line(cache=cache, live=live, logits={"name": "kl", "at": at})["student"],
        )
        context = Context(
            run=run,
            name="student",
            seed=0,
            folder=artifacts["student"].folder,
            inputs=artifacts,
            splits=splits,
            parallel=train.choose("single"),
        )
        taught = targets_of(context, c)
        rows = np.arange(32)
        batch = {
            "id": jnp.asarray(splits.train.ids[rows]),
            "row": jnp.asarray(rows),
            "epoch": jnp.full(32, 3, jnp.uint32),
            "inputs": {k: jnp.asarray(v) for k, v in splits.train.read(rows).items()},
            "label": jnp.asarray(splits._whole.labels[rows]),
        }
        seen = jax.jit(taught.views)(batch, taught.resident, jax.random.key(0))
        spec, variables = load(artifacts["student"], field="here")
        outputs = jax.jit(functools.partial(spec.module().apply, train=False))(
            variables, seen["inputs"]
        )
        softmaxes = tasks.Softmaxes(2.0, c.logits)
        loss, where = spec.task.taught(taught.source.signal, softmaxes)(outputs, seen)
        found.append((seen, np.asarray(loss), np.asarray(where)))
    (cached, loss, where), (live, other, there) = found
    np.testing.assert_array_equal(where, there)
    np.testing.assert_array_equal(cached["inputs"]["tokens"], live["inputs"]["tokens"])
    np.testing.assert_allclose(loss[where], other[where], atol=1e-6)
    hidden = np.asarray(cached["hidden"])
    inside = np.arange(12)[None] < np.asarray(cached["inputs"]["tokens_length"])[:, None]
    asked = hidden if "hidden" in (at, cache.removeprefix("at_")) else inside
    np.testing.assert_array_equal(where, asked)
    assert 0 < hidden.sum() < inside.sum()


@pytest.mark.thorough
def test_what_is_kept_of_hidden_tokens_alone_is_less_and_asked_for_again_the_same(more):
    _, artifacts, _ = more
    sizes = []
    for name in ("cache", "at_hidden"):
        folder = artifacts[name].folder
        found = audit.audit(folder, samples=40, seed=0)
        assert found.difference <= 1e-5
        assert found.largest > 1.0
        files = pathlib.Path(folder / "cache").rglob("*")
        sizes.append(sum(file.stat().st_size for file in files if file.is_file()))
    assert sizes[1] < 0.7 * sizes[0]


def small(**stages):
    """A line that is looked at and not run."""
    net = {"kind": "finetune", "encoder": TEACHER, "views": VIEWS, **training(1)}
    return {name: {**net, **stage} for name, stage in stages.items()}


ELSEWHERE = {
    "kind": "pretrain",
    "encoder": {**BERT, "depth": 1},
    "views": VIEWS,
    "projector": [],
    "method": {"name": "masked_lm"},
    **training(1),
}
FAULTS = {
    "shown": (
        small(net={"views": {"recipe": "eval"}}),
        r"stages\.net\.views: the task is masked_lm, and all tokens are shown; take masked_tokens",
    ),
    "elsewhere": (
        {"net": ELSEWHERE},
        r"stages\.net\.views\.recipe: masked_tokens says which tokens are to be said, and net does not",
    ),
    "pool": (
        small(net={"encoder": {**TEACHER, "pool": "mean"}}),
        r"stages\.net\.encoder\.pool: ",
    ),
    "bag": (
        small(net={"encoder": {"name": "bag_of_embeddings", "width": 8}}),
        r"stages\.net\.encoder.*: ",
    ),
    "trim": (
        {**small(net={}), "less": {"kind": "trim", "model": "net"}},
        r"stages\.less\.model: net is given .*, of which nothing could be fewer",
    ),
    "head": (
        small(
            net={},
            next={"encoder": {**STUDENT, "width": 8, "weights": {"stage": "net", "head": True}}},
        ),
        r"stages\.next\.encoder\.weights\.stage: .* of net is \[2, 8\], and .* is \[2, 4\]; give the",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_a_masked_language_model_is_one_line(case, tmp_path):
    stages, line = FAULTS[case]
    with pytest.raises(BadInput, match=rf"^config\.{line}") as refused:
        planned(run_of(tmp_path / "texts", **stages), tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_tokens_are_asked_of_texts_without_labels_that_can_hide_some(tmp_path):
    run = run_of(tmp_path / "texts", **small(net={}))
    pixels = data.from_arrays(
        np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, int), classes=2, name="x"
    )
    with pytest.raises(BadInput, match=r"^kind: tokens of x are asked for, and it has no text"):
        run.data.target.asked(pixels, tested=False)


def test_a_student_begins_with_the_layers_and_the_head_of_its_teacher(done, tmp_path, capsys):
    run, artifacts, splits = done
    weights = {"stage": "teacher", "blocks": [1], "head": True}
    c = parse.parse(config.Stage, line(encoder={**STUDENT, "weights": weights})["student"])
    context = Context(
        run=run,
        name="student",
        seed=0,
        folder=epath.Path(tmp_path),
        inputs=artifacts,
        splits=splits,
        parallel=train.choose("single"),
    )
    start = begin(
        context, start_from=None, encoder=c.encoder, inputs=splits.inputs, path=context.path
    )
    small = {**STUDENT, "embedding_size": 6, "weights": {"stage": "teacher", "blocks": [1]}}
    c = parse.parse(config.Encoder, small)
    factorised = begin(
        context, start_from=None, encoder=c, inputs=splits.inputs, path=context.path
    ).variables["params"]["encoder"]
    _, theirs = load(artifacts["teacher"], field="here")
    theirs, own = theirs["params"], start.variables["params"]
    for a, b in (
        (own["masked_lm"], theirs["masked_lm"]),
        (own["encoder"]["block0"], theirs["encoder"]["block1"]),
        (own["encoder"]["word"], theirs["encoder"]["word"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert "type" not in own["encoder"]
    left, values, right = np.linalg.svd(theirs["encoder"]["word"]["embedding"], full_matrices=False)
    first, second = factorised["word"]["embedding"], factorised["word_projection"]["kernel"]
    nearest = left[:, :6] * values[:6] @ right[:6]
    np.testing.assert_allclose(np.asarray(first) @ np.asarray(second), nearest, atol=1e-5)
