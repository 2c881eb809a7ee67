"""A model whose vocabulary is what its data use, through quantization to a file."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from kdjax import config, parse, pipeline
from kdjax.artifacts import Artifact
from kdjax.artifacts.model import load
from kdjax.commands.report import write_report
from kdjax.contexts import Splits
from kdjax.types import BadInput
from tests.sentence_tables import BERT, PLAIN_VIEWS, pairs, training

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("jax2onnx", reason="the extra export is not installed")

_BAG = {"name": "bag_of_embeddings", "width": 8}


def data_of(folder):
    """Test texts have words that no training text has; the tokenizer knows them all."""
    folder.mkdir()
    data = pairs(folder, n=120)
    lines = (folder / "test.csv").read_text().splitlines()
    odd = [f"an unheard of spectacle,{line.split(',')[1]},other" for line in lines[1:6]]
    (folder / "test.csv").write_text("\n".join([*lines, *odd]) + "\n")
    from kdjax.data.sources import Trained, tokenizing

    texts = (folder / "train.csv").read_text() + "an unheard of spectacle " * 40
    text = tokenizing.train([texts.replace(",", " ")], Trained(train="wordpiece", vocab=300))
    (folder / "tokenizer.json").write_text(text)
    data["source"]["tokenizer"] = str(folder / "tokenizer.json")
    return data


def run_of(data, encoder, **stages):
    line = {
        "net": {"kind": "finetune", "encoder": encoder, "views": PLAIN_VIEWS, **training(6)},
        "small": {"kind": "trim", "model": "net"},
        **stages,
    }
    run = {"name": "it", "data": data, "parallel": "single", "reference": "net", "stages": line}
    return parse.parse(config.Run, run)


def done(run, folder):
    splits, workdir = Splits(run.data), epath.Path(folder)
    tasks = pipeline.plan(run, workdir, splits)
    pipeline.check(run, tasks, splits)
    pipeline.execute(run, tasks, splits)
    write_report(run, workdir, splits, command="kdjax")
    rows = json.loads((folder / "report.json").read_text())["rows"]
    artifacts = {task.name: Artifact.open(task.folder, task.stage) for task in tasks}
    return artifacts, {row["stage"]: row for row in rows}, splits


_AFTER = {
    "int8": {
        "kind": "quantize",
        "model": "small",
        "float_edges": False,
        "agreement": 0.8,
        "calibration_examples": 40,
    },
    "files": {"kind": "export", "model": "small", "formats": ["onnx"]},
    "int8_file": {"kind": "export", "model": "int8", "formats": ["onnx"], "agreement": 0.8},
    "whole": {"kind": "export", "model": "net", "formats": ["onnx"]},
    "healed": {"kind": "finetune", "start_from": "small", "views": PLAIN_VIEWS, **training(2)},
}


def test_a_trimmed_model_is_the_same_where_its_tokens_are_left_and_its_file_is_smaller(tmp_path):
    data = data_of(tmp_path / "tables")
    artifacts, rows, splits = done(run_of(data, BERT, **_AFTER), tmp_path / "run")
    said = artifacts["small"].manifest["trimmed"]
    kept, before = said["kept"]["tokens"]["are"], said["kept"]["tokens"]["of"]
    assert kept < before
    assert said["difference"] <= 1e-6
    assert said["test_examples_otherwise"] == 5

    # By the file and the tokenizer beside it, without kdjax.
    import onnxruntime

    small, whole = artifacts["files"].folder, artifacts["whole"].folder
    own, all_of_it = (
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (small, whole)
    )
    assert own.get_vocab_size() == kept
    assert all_of_it.get_vocab_size() == before
    answers = []
    for name, folder, tokenizer in (("small", small, own), ("net", whole, all_of_it)):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        for text, other in (("the film is warm", "a cold story"), ("a dull plot", "it is silly")):
            found = tokenizer.encode(text, other)
            given = {
                "tokens": np.asarray([found.ids], np.int32),
                "tokens_length": np.asarray([len(found.ids)], np.int32),
                "second": np.asarray([found.type_ids.index(1)], np.int32),
            }
            answers.append(session.run(None, given)[0])
    np.testing.assert_allclose(answers[:2], answers[2:], atol=1e-6)
    fallen = own.encode("an unheard of spectacle", "it is").tokens
    assert "[UNK]" not in fallen
    assert len(fallen) > len(all_of_it.encode("an unheard of spectacle", "it is").tokens)

    # The bytes that fall are the rows that went.
    rows_gone = 4 * BERT["width"] * (before - kept)
    assert (
        rows["net.onnx"]["bytes_on_disk"] - rows["small.onnx"]["bytes_on_disk"] >= 0.9 * rows_gone
    )
    assert rows["net"]["params"] - rows["small"]["params"] == BERT["width"] * (before - kept)
    assert (artifacts["int8_file"].folder / "tokenizer.json").read_text() == (
        small / "tokenizer.json"
    ).read_text()
    assert rows["small"]["scores"]["agreement"]["value"] >= 0.95
    assert {"small", "int8", "int8.onnx", "healed"} <= {*rows}
    for name in ("small", "int8", "healed"):
        spec, _ = load(artifacts[name], field="here")
        assert spec.inputs.fields["tokens"].below == kept

    # The same examples; of those whose tokens are left, the same answers.
    spec, variables = load(artifacts["net"], field="here")
    other, left = load(artifacts["small"], field="here")
    known = splits.given(other.inputs)
    assert known is splits.narrowed
    wanted, found = (
        np.asarray(jax.jit(s.predict)(v, d.test_inputs))
        for s, v, d in ((spec, variables, splits), (other, left, known))
    )
    same = splits.test.lengths["tokens"] == known.test.lengths["tokens"]
    assert same.sum() == len(wanted) - 5
    np.testing.assert_allclose(found[same], wanted[same], atol=1e-6)
    np.testing.assert_array_equal(known.test.ids, splits.test.ids)
    np.testing.assert_array_equal(known.test.labels, splits.test.labels)

    # Begun again, all is done; nothing is made of the smaller tokenizer anew.
    run = run_of(data, BERT, **_AFTER)
    again = Splits(run.data)
    assert not pipeline.check(run, pipeline.plan(run, epath.Path(tmp_path / "run"), again), again)


def test_a_vocabulary_of_its_own_and_a_bag_of_embeddings(tmp_path):
    """More rows than there are tokens go, too; a table that nothing else has is found by its shape."""
    data = data_of(tmp_path / "tables")
    data["source"]["text"] = "a"
    artifacts, rows, _ = done(run_of(data, {**_BAG, "vocab": 500}), tmp_path / "run")
    kept = artifacts["small"].manifest["trimmed"]["kept"]["tokens"]["are"]
    assert rows["net"]["params"] - rows["small"]["params"] == 8 * (500 - kept)


@pytest.mark.thorough
def test_a_factorised_table_is_trimmed_rounded_row_by_row_and_written(tmp_path):
    data = data_of(tmp_path / "tables")
    stages = {name: _AFTER[name] for name in ("int8", "int8_file")}
    run = run_of(data, {**BERT, "embedding_size": 4}, **stages)
    artifacts, rows, _ = done(run, tmp_path / "run")
    said = artifacts["small"].manifest["trimmed"]
    kept, before = said["kept"]["tokens"]["are"], said["kept"]["tokens"]["of"]
    assert said["difference"] <= 1e-6
    spec, variables = load(artifacts["small"], field="here")
    words = variables["params"]["encoder"]
    assert words["word"]["embedding"].shape == (kept, 4)
    assert words["word_projection"]["kernel"].shape == (4, BERT["width"])
    assert rows["net"]["params"] - rows["small"]["params"] == 4 * (before - kept)
    begun, learned = spec.init(jax.random.key(0)), variables
    for name in ("word", "word_projection"):  # both are trained, wherever they began
        a, b = (jax.tree.leaves(of["params"]["encoder"][name])[0] for of in (begun, learned))
        assert a.shape == b.shape
        assert np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-4
    rounded, _ = load(artifacts["int8"], field="here")
    assert rounded.rules["encoder/word/embedding"].weights == "int8"
    assert rounded.rules["encoder/word_projection/kernel"].weights == "int8"
    (parity,) = artifacts["int8_file"].manifest["parity"]
    assert parity["agreement"] >= 0.95


CACHED = {
    "cache": {"kind": "cache", "teacher": "net", "recipe": PLAIN_VIEWS, "views": 1},
    "student": {"kind": "distill", "cache": "cache", "start_from": "small", **training(2)},
}
FAULTS = {
    "cache": (CACHED, r"student: it reads (net|small) and (net|small).*trimmed: .*; trim what"),
    "quantized": (
        {
            "int8": {**_AFTER["int8"], "model": "net"},
            "again": {"kind": "trim", "model": "int8"},
        },
        r"again\.model: int8 is quantized; trim it, then quantize it",
    ),
    "twice": (
        {"again": {"kind": "trim", "model": "small"}},
        r"again\.model: .*all that small knows occurs in the data; leave the stage out",
    ),
}


def checked(run, folder):
    splits = Splits(run.data)
    pipeline.check(run, pipeline.plan(run, epath.Path(folder), splits), splits)


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_trimmed_is_one_line_before_anything_runs(case, tmp_path):
    stages, line = FAULTS[case]
    run = run_of(data_of(tmp_path / "tables"), BERT, **stages)
    with pytest.raises(BadInput, match=rf"^config\.stages\.{line}") as refused:
        checked(run, tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_texts_that_become_too_long_are_named(tmp_path):
    data = data_of(tmp_path / "tables")
    data["source"]["max_length"] = 32
    line = (
        r"^config\.data\.source\.max_length: 32, and .* has \d texts? of up to \d+ tokens .*; give"
    )
    with pytest.raises(BadInput, match=line):
        checked(run_of(data, BERT), tmp_path / "run")


def test_pictures_have_no_tokens(tmp_path):
    net = {"kind": "finetune", "encoder": {"name": "cnn", "widths": [4]}, "views": PLAIN_VIEWS}
    stages = {"net": {**net, **training(1)}, "small": {"kind": "trim", "model": "net"}}
    run = parse.parse(config.Run, {"name": "it", "data": {"name": "digits"}, "stages": stages})
    line = r"^config\.stages\.small\.model: net is given image of 8 x 8 pixels, of which nothing"
    with pytest.raises(BadInput, match=line):
        checked(run, tmp_path)
