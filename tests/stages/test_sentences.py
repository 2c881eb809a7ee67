"""Sentences through the whole line: tokenised, learned from, distilled, quantized, and a file to run."""

import json
import os

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact, tensors
from kdjax.artifacts.model import load
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.export import load_onnx, load_stablehlo
from kdjax.types import BadInput
from tests.sentence_tables import BERT, PLAIN_VIEWS, TRAINED, pairs, training

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("jax2onnx", reason="the extra export is not installed")


def _line(data, teacher, student, steps, **stages):
    line = {
        "teacher": {
            "kind": "finetune",
            "encoder": teacher,
            "views": PLAIN_VIEWS,
            **training(steps),
        },
        "cache": {"kind": "cache", "teacher": "teacher", "recipe": PLAIN_VIEWS, "views": 1},
        "student": {"kind": "distill", "cache": "cache", "encoder": student, **training(steps)},
        "int8": {
            "kind": "quantize",
            "model": "student",
            "float_edges": False,
            "agreement": 0.8,
            "calibration_examples": 64,
        },
        "file": {"kind": "export", "model": "student", "formats": ["onnx", "stablehlo"]},
        "int8_file": {"kind": "export", "model": "int8", "formats": ["onnx"], "agreement": 0.8},
        **stages,
    }
    run = {"name": "sentences", "data": data, "parallel": "single", "stages": line}
    return parse.parse(config.Run, run)


def _done(run, folder):
    splits, workdir = Splits(run.data), epath.Path(folder)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.check(run, tasks, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    rows = json.loads((folder / "report.json").read_text())["rows"]
    return artifacts, {row["stage"]: row["scores"]["accuracy"]["value"] for row in rows}, splits


def _cut(inputs, length):
    """The examples that are so long at most, padded to it."""
    short = inputs["tokens_length"] <= length
    found = {name: array[short] for name, array in inputs.items()}
    return {**found, "tokens": found["tokens"][:, :length]}


def _files_are_live(artifacts, splits, of, lengths):
    spec, variables = load(artifacts[of], field="here")
    predict = jax.jit(spec.predict)
    whole = np.asarray(predict(variables, splits.test_inputs))
    for length in lengths:
        some = _cut(splits.test_inputs, length)
        short = splits.test_inputs["tokens_length"] <= length
        assert short.sum() > 0
        live = np.asarray(predict(variables, some))
        np.testing.assert_allclose(live, whole[short], atol=1e-5 * np.abs(whole).max())
        for run in (
            load_onnx(artifacts["file"].folder / f"{of}.onnx", threads=1),
            load_stablehlo(artifacts["file"].folder / f"{of}.stablehlo"),
        ):
            found = np.asarray(run(*some.values()))
            assert np.abs(found - live).max() <= 1e-4 * np.abs(live).max()


def test_pairs_through_the_whole_line(tmp_path):
    """Buckets, types, a BERT that is taught by a BERT and shrunk."""
    folder = tmp_path / "tables"
    folder.mkdir()
    data = {**pairs(folder), "buckets": {"tokens": [24]}}
    small = {
        "kind": "shrink",
        "model": "student",
        "sparsity": 0.3,
        "tolerance": 1e-4,
        "examples": 0,
    }
    run = _line(data, BERT, {**BERT, "depth": 1}, 20, small=small)
    artifacts, scores, splits = _done(run, tmp_path / "run")
    assert list(splits.test_inputs) == ["tokens", "tokens_length", "second"]
    _files_are_live(artifacts, splits, "student", (24, 40))
    assert {"teacher", "student", "small", "int8", "student.onnx", "int8.onnx"} <= {*scores}
    spec, _ = load(artifacts["small"], field="here")
    assert spec.widths
    (accepted,) = {entry["accepts"] for entry in artifacts["file"].manifest["parity"]}
    assert accepted.startswith("tokens: int32 [1 to 40], tokens_length: int32 [], second: int32 []")

    # What a user runs: numpy, onnxruntime and tokenizers.
    import onnxruntime

    folder = artifacts["file"].folder
    assert artifacts["file"].manifest["beside"] == ["tokenizer.json"]
    session = onnxruntime.InferenceSession(folder / "student.onnx")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    pair = tokenizer.encode("a warm film", "some dull actors")
    numbers = [pair.ids], [len(pair.ids)], [pair.sequence_ids.index(1)]
    given = {
        each.name: np.asarray(own, np.int32)
        for each, own in zip(session.get_inputs(), numbers, strict=True)
    }
    (logits,) = session.run(None, given)
    spec, variables = load(artifacts["student"], field="here")
    np.testing.assert_allclose(logits, jax.jit(spec.predict)(variables, given), atol=1e-4)


# LSTMs through the line: tests/stages/test_sound.py; tables in integers: tests/quant.
@pytest.mark.thorough
def test_a_recurrent_student_through_the_whole_line(tmp_path):
    """Of a mean over embeddings; its units go, and all of it goes into integers, the table too."""
    folder = tmp_path / "tables"
    folder.mkdir()
    data = {**pairs(folder), "buckets": {"tokens": [24]}}
    data["source"] |= {"text": "a", "label": "mood"}
    teacher = {"name": "bag_of_embeddings", "width": 16}
    student = {"name": "lstm", "widths": [12], "bidirectional": True, "embedding": 16}
    small = {
        "kind": "shrink",
        "model": "student",
        "sparsity": 0.3,
        "tolerance": 1e-4,
        "examples": 0,
    }
    run = parse.plain(_line(data, teacher, student, 20, small=small))
    run["stages"]["int8"]["rules"] = [{"activations": "dynamic", "smooth": 0.75}]
    artifacts, scores, splits = _done(parse.parse(config.Run, run), tmp_path / "run")
    _files_are_live(artifacts, splits, "student", (12, 40))
    assert {"teacher", "student", "small", "int8", "student.onnx", "int8.onnx"} <= {*scores}
    assert {"lstm0", "back0"} <= {
        p.rpartition("/")[2] for p in load(artifacts["small"], field="here")[0].widths
    }
    rules = artifacts["int8"].manifest["quantized"]["layers"]
    assert rules["encoder/word/embedding"]["activations"] is None
    assert rules["encoder/net/back0/recurrent"]["activations"] == "dynamic"
    assert (rules["classifier/kernel"]["smooth"], rules["encoder/net/lstm0/kernel"]["smooth"]) == (
        0.75,
        None,
    )
    spec, variables = load(artifacts["int8"], field="here")
    kept = tensors.in_integers(spec, variables)
    divisors = kept["params/classifier/kernel.smooth"]
    live = variables["params"]["classifier"]["kernel"] * divisors[:, None]
    back = kept["params/classifier/kernel"] * kept["params/classifier/kernel.scale"]
    assert np.abs(back - live).max() <= 0.51 * kept["params/classifier/kernel.scale"].max()
    whole = tensors.in_integers(spec, variables, numbers="float")["params/classifier/kernel"]
    np.testing.assert_allclose(whole, back / divisors[:, None], rtol=1e-6)
    files = [artifacts[stage].folder for stage in ("file", "int8_file")]
    sizes = [next(folder.glob("*.onnx")).stat().length for folder in files]
    assert sizes[1] < 0.65 * sizes[0]


def _sst2():
    folder = os.environ.get("KDJAX_DATA_DIR", "")
    if not os.path.isdir(os.path.join(folder, "sst2_sentences")):
        pytest.skip("sst2_sentences is not prepared")
    source = {"kind": "tfds_text", "set": "sst2_sentences", "max_length": 64, "truncate": True}
    source["tokenizer"] = {"train": "wordpiece", "vocab": 1000}
    splits = {"train_split": "train[:1500]", "test_split": "validation[:200]"}
    return {"name": "sst2", "source": source, "buckets": {"tokens": [24, 40]}, **splits}


# In small, and of pairs: test_pairs_through_the_whole_line.
@pytest.mark.thorough
def test_sst2_sentences_to_a_file_that_reads_text(tmp_path):
    student = {"name": "bag_of_embeddings", "width": 16, "hidden": [8]}
    artifacts, scores, splits = _done(_line(_sst2(), BERT, student, 60), tmp_path)
    assert scores["student"] > 0.53  # 0.5 knows nothing
    assert scores["int8.onnx"] > scores["student"] - 0.05
    _files_are_live(artifacts, splits, "student", (24, 64))
    folder = artifacts["file"].folder
    assert artifacts["file"].manifest["beside"] == ["tokenizer.json"]

    # What a user runs: numpy, onnxruntime and tokenizers.
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "student.onnx")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = np.asarray([tokenizer.encode("a warm , funny film").ids], np.int32)
    names = [each.name for each in session.get_inputs()]
    given = dict(zip(names, (ids, np.asarray([ids.shape[1]], np.int32)), strict=True))
    (logits,) = session.run(None, given)
    assert logits.shape == (1, 2)
    spec, variables = load(artifacts["student"], field="here")
    assert names == ["tokens", "tokens_length"]
    live = jax.jit(spec.predict)(variables, given)
    np.testing.assert_allclose(logits, live, atol=1e-4)


def test_words_that_are_counted_are_of_the_text_they_stand_in(tmp_path):
    """Which of the two is warm and which is cold cannot be said of their words together."""
    data = pairs(tmp_path)
    for split, n in (("train", 200), ("test", 100)):
        texts = ["a warm film", "a cold film"]
        rows = [",".join([*texts[:: 1 - 2 * (i % 2)], "ab"[i % 2]]) for i in range(n)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["a,b,mood", *rows]) + "\n")
    data["source"]["tokenizer"] = {"train": "wordpiece", "vocab": 30}
    stages = {"words": {"kind": "evaluate", "knn": None, "linear": {"strengths": [1e-3]}}}
    run = {"name": "words", "data": data, "parallel": "single", "stages": stages}
    _, scores, _ = _done(parse.parse(config.Run, run), tmp_path / "run")
    assert scores["words/linear"] == 1.0


# That each learns: tests/ssl/test_masked_lm.py.
@pytest.mark.thorough
def test_pretrained_by_hidden_tokens_and_by_dropout_then_tuned(tmp_path):
    """Both leave encoders that later stages take."""
    tables = tmp_path / "tables"
    tables.mkdir()
    data = {**pairs(tables), "buckets": {"tokens": [24]}}
    own = {"kind": "pretrain", "encoder": BERT, "views": PLAIN_VIEWS, **training(12)}
    tuned = {"kind": "finetune", "views": PLAIN_VIEWS, **training(4)}
    stages = {
        "hidden": {**own, "method": {"name": "masked_lm"}, "projector": []},
        "dropout": {**own, "method": {"name": "simclr"}, "projector": [16]},
        "first": {**tuned, "start_from": "hidden"},
        "other": {**tuned, "start_from": "dropout"},
    }
    run = {"name": "sentences", "data": data, "parallel": "single", "stages": stages}
    artifacts, scores, _ = _done(parse.parse(config.Run, run), tmp_path / "run")
    assert {"first", "other"} <= {*scores}
    for name in ("hidden", "dropout"):
        lines = (artifacts[name].folder / "metrics.jsonl").read_text().splitlines()
        assert all(np.isfinite(v) for v in json.loads(lines[-1]).values() if isinstance(v, float))


# Of any layers: tests/stages/test_layers.py.
@pytest.mark.thorough
def test_a_student_of_every_second_block_begins_as_its_teacher_without_types(tmp_path):
    """DistilBERT's beginning: types and pooler are left behind, and all else is the teacher's."""
    tables = tmp_path / "tables"
    tables.mkdir()
    still = {"optimizer": {"name": "sgd", "learning_rate": 1e-12}, "batch": 32, "steps": 1}
    own = {"kind": "finetune", "views": PLAIN_VIEWS, **still}
    pooled = {**BERT, "depth": 4, "pool": "class", "pooler": "tanh"}
    every = {"stage": "teacher", "blocks": [0, 2]}
    student = {**BERT, "name": "distilbert", "depth": 2, "types": 0, "weights": every}
    stages = {"teacher": {**own, "encoder": pooled}, "student": {**own, "encoder": student}}
    run = {"name": "it", "data": pairs(tables, n=64), "parallel": "single", "stages": stages}
    artifacts, _, _ = _done(parse.parse(config.Run, run), tmp_path / "run")
    teacher, found = (
        load(artifacts[name], field="here")[1]["params"]["encoder"]
        for name in ("teacher", "student")
    )
    assert {"pooler", "type"} == teacher.keys() - found.keys() - {"block2", "block3"}
    renamed = {**teacher, "block1": teacher["block2"]}
    for name, tree in found.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), tree, renamed[name])


def test_a_narrower_table_begins_as_the_principal_components_of_another(tmp_path):
    """Of a bag of embeddings and of an LSTM; what else they have begins at random."""
    tables = tmp_path / "tables"
    tables.mkdir()
    still = {"optimizer": {"name": "sgd", "learning_rate": 1e-12}, "batch": 32, "steps": 1}
    own = {"kind": "finetune", "views": PLAIN_VIEWS, **still}
    weights = {"stage": "teacher", "fresh": "(?!params/word/).*"}
    bag = {"name": "bag_of_embeddings", "width": 5, "hidden": [4], "weights": weights}
    lstm = {"name": "lstm", "widths": [4], "embedding": 3, "weights": weights}
    stages = {
        "teacher": {**own, "encoder": BERT},
        "bag": {**own, "encoder": bag},
        "lstm": {**own, "encoder": lstm},
    }
    data = pairs(tables, n=64)
    data["source"] |= {"text": "a", "label": "mood"}
    run = {"name": "it", "data": data, "parallel": "single", "stages": stages}
    artifacts, _, _ = _done(parse.parse(config.Run, run), tmp_path / "run")
    tables = {
        name: np.asarray(
            load(artifacts[name], field="here")[1]["params"]["encoder"]["word"]["embedding"],
            np.float64,
        )
        for name in stages
    }
    whole = tables["teacher"]
    left, values, _ = np.linalg.svd(whole - whole.mean(0), full_matrices=False)
    for name, width in (("bag", 5), ("lstm", 3)):
        assert tables[name].shape == (len(whole), width)
        wanted = left[:, :width] * values[:width]
        # Up to the sign of a component, which no decomposition says.
        signs = np.sign((tables[name] * wanted).sum(0))
        np.testing.assert_allclose(tables[name], wanted * signs, atol=1e-5)


FAULTS = {
    "positions": ({"positions": 32}, {}, "stages.teacher.encoder.positions: 32, and texts of the"),
    "pool": (
        {"pool": "none"},
        {},
        r"stages.teacher.encoder.pool: none gave .*; features are floats \[batch, ",
    ),
    "vocabulary": ({"vocab": 20}, {}, "stages.teacher.encoder.vocab: 20, and the data have"),
    "length": ({}, {"max_length": 8}, "data.source.max_length: 8, and .* of up to"),
    "root": ({}, {"root": "nowhere"}, "data.source.root: .*nowhere is not there"),
    "set": (
        {},
        {"tokenizer": {**TRAINED, "split": "valid"}},
        "data.source.tokenizer.split: split",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_does_not_go_together_is_one_line_before_anything_runs(case, tmp_path):
    encoder, source, line = FAULTS[case]
    data = pairs(tmp_path, n=40)
    data["source"].update(source)
    run = _line(data, {**BERT, **encoder}, BERT, 2)
    splits = Splits(run.data)
    with pytest.raises(BadInput, match=rf"^config\.{line}") as refused:
        pipeline.check(run, pipeline.plan(run, epath.Path(tmp_path / "run"), splits), splits)
    assert "\n" not in str(refused.value)


def test_weights_of_another_tokenizer_are_refused(tmp_path):
    import jax.numpy as jnp

    from kdjax import models, weights

    tables, published = tmp_path / "tables", tmp_path / "published"
    tables.mkdir()
    published.mkdir()
    data = pairs(tables, n=80)
    dataset = Splits(parse.parse(config.Data, data)).train
    text = dataset.beside["tokenizer.json"].decode()
    vocab = dataset.fields["tokens"].below
    fields = {name: value for name, value in BERT.items() if name != "name"}
    module = models.bert(vocab=vocab, **fields)
    made = module.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), train=False)
    weights.write(str(published / "model.safetensors"), module, made, layout="hf")
    (published / "tokenizer.json").write_text(text)

    def checked(**more):
        how = {"source": str(published), "layout": "hf", **more}
        run = _line(data, {**BERT, "weights": how}, BERT, 2)
        splits = Splits(run.data)
        tasks = pipeline.plan(run, epath.Path(tmp_path / "run"), splits)
        pipeline.check(run, tasks, splits)

    checked()
    (published / "tokenizer.json").write_text(text.replace('"film"', '"movie"'))
    line = (
        r"^config\.data\.source\.tokenizer: token \d+ is 'film' and 'movie' in that of the data and"
    )
    with pytest.raises(BadInput, match=line):
        checked()
    checked(own_preprocessing=True)
