"""Sentences: lines, tables, prepared sets; tokenised once, and what is wrong with them in a line."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdjax import data
from kdjax.data import sources
from kdjax.data.sources import applied_tokenizer, tokenizing
from kdjax.data.sources import texts as of_texts
from kdjax.data.sources.applied_tokenizer import Tokenizer
from kdjax.types import BadInput
from tests import prepared_sets

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "##s", "dull")
ROBERTA = ("<pad>", "<unk>", "<s>", "</s>", "a", "film", "fine")
LINES = ["a fine film", "dull", "Fine FILMS", "a dull film", "a a a a", "films"]


@pytest.fixture
def vocabulary(tmp_path):
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder / "vocab.txt"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    return folder


def numbers(text):
    """What the vocabulary makes of a text, worked out by hand."""
    pieces = {"films": ["film", "##s"]}
    words = [p for word in text.lower().split() for p in pieces.get(word, [word])]
    return [WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]


def read(dataset):
    """The tokens of each example."""
    inputs = dataset.inputs()
    lengths = inputs["tokens_length"]
    for row, n in zip(inputs["tokens"], lengths, strict=True):
        assert not row[n:].any()
    return [row[:n].tolist() for row, n in zip(inputs["tokens"], lengths, strict=True)]


def table(root, rows, name="all.csv", header="text,label"):
    (root / name).write_text("\n".join([header, *rows]) + "\n")
    return root


def test_lines_are_what_the_vocabulary_makes_of_them(root, vocabulary):
    (root / "train.txt").write_text("\n".join(LINES))
    found = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
    assert sorted(read(found)) == sorted(map(numbers, LINES))
    assert found.target == data.Unlabelled()
    assert found.fields["tokens"].below == len(WORDS)
    assert found.lengths["tokens"].tolist() == [len(own) for own in read(found)]
    said = Tokenizer(found.beside["tokenizer.json"].decode())
    again = said.encode([(line,) for line in LINES], most=8, truncate=False)
    assert [own.tolist() for own in again.values] == list(map(numbers, LINES))


def test_a_folder_a_vocabulary_and_a_tokenizer_file_say_the_same(root, vocabulary, tmp_path):
    (root / "train.txt").write_text("\n".join(LINES))
    first = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
    tokenizer = json.loads(first.beside["tokenizer.json"])
    tokenizer["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(tokenizer))  # pads by itself, which is none of its business
    for place in (vocabulary.parent, file):
        other = sources.lines("train", root=root, tokenizer=place, max_length=8)
        assert other.fingerprint == first.fingerprint


def test_capital_letters_count_where_the_vocabulary_or_the_file_beside_it_says_so(root, vocabulary):
    (root / "train.txt").write_text("Fine")
    (unknown, fine) = (WORDS.index("[UNK]"), WORDS.index("fine"))

    def middle():
        dataset = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
        return read(dataset)[0][1:-1]

    assert middle() == [fine]
    beside = vocabulary.parent / "tokenizer_config.json"
    beside.write_text('{"do_lower_case": false}')
    assert middle() == [unknown]
    beside.unlink()
    vocabulary.write_text("\n".join((*WORDS, "Dull")))
    assert middle() == [unknown]


def test_accents_and_chinese_characters_are_as_the_file_beside_the_vocabulary_says(
    root, vocabulary
):
    (root / "train.txt").write_text("f\u00efne \u4e2da")
    vocabulary.write_text("\n".join((*WORDS, "f\u00efne", "\u4e2d", "\u4e2da")))
    plain, accented, chinese, joined = (WORDS.index("fine"), 10, 11, 12)

    def made(said):
        (vocabulary.parent / "tokenizer_config.json").write_text(json.dumps(said))
        dataset = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
        return read(dataset)[0][1:-1]

    small = {"do_lower_case": True}
    assert made(small) == [plain, chinese, WORDS.index("a")]
    assert made({**small, "strip_accents": False}) == [accented, chinese, WORDS.index("a")]
    assert made({**small, "tokenize_chinese_chars": False}) == [plain, joined]
    with pytest.raises(BadInput, match=r"^tokenizer: .*json says that words are parted by mecab"):
        made({"word_tokenizer_type": "mecab"})


def test_tokenizers_of_one_vocabulary_differ_in_what_they_make_of_a_text(vocabulary):
    small = tokenizing.read(vocabulary)
    assert sources.unlike(small, tokenizing.read(vocabulary)) is None
    assert sources.unlike(small, applied_tokenizer.cutting(small, 4)) is None
    (vocabulary.parent / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    apart = "'A' is [CLS] a [SEP] and [CLS] [UNK] [SEP]"
    assert sources.unlike(small, tokenizing.read(vocabulary)) == apart
    vocabulary.write_text(vocabulary.read_text().replace("fine", "great"))
    assert sources.unlike(small, tokenizing.read(vocabulary)) == "token 6 is 'fine' and 'great'"


@pytest.mark.parametrize("text", ["text", ("text", "text2")])
def test_the_tokenizer_beside_a_file_cuts_where_the_data_are_cut(root, vocabulary, text):
    """Whoever has the file has it alone: a longer text may be more than its network has positions."""
    texts = [(one, other) for one, other in zip(LINES, LINES[::-1], strict=True)]
    table(root, [f"{one},{other},0" for one, other in texts], header="text,text2,label")
    given = {"root": root, "text": text, "max_length": 6, "truncate": True}
    found = sources.text_table("train", tokenizer=vocabulary, **given)
    alone = tokenizers.Tokenizer.from_str(found.beside["tokenizer.json"].decode())
    own = [(pair if len(text) == 2 else pair[:1]) for pair in texts]
    assert sorted(alone.encode(*one).ids for one in own) == sorted(read(found))
    assert max(len(one) for one in read(found)) == 6


def test_byte_level_bpe_of_two_files(root, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"f": 0, "i": 1, "fi": 2, "Ġ": 3, "Ġfi": 4}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nf i\nĠ fi\n")
    (root / "train.txt").write_text("fi fi")
    found = sources.lines("train", root=root, tokenizer=tmp_path, max_length=8)
    assert read(found) == [[2, 4]]


def test_the_texts_of_a_pair_are_framed_as_robertas(root, tmp_path):
    """`<s> a </s></s> b </s>`, and the second one begins behind both ends."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "<mask>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    table(root, ["aa,b,0", "b,a,1"], header="text,text2,label")
    found = sources.text_table(
        "train", root=root, text=("text", "text2"), tokenizer=tmp_path, max_length=9
    )
    assert sorted(read(found)) == [[0, 4, 4, 2, 2, 5, 2], [0, 5, 2, 2, 4, 2]]
    assert sorted(found.inputs()["second"].tolist()) == [4, 5]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_with_classes(root, vocabulary, kind):
    labels = ["good", "bad", "good", "", "bad", "bad"]
    rows = list(zip(LINES, labels, strict=True))
    file = root / f"train.{kind}"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        pq.write_table(pa.table({"said": LINES, "mood": labels}), file)
    elif kind == "jsonl":
        file.write_text(
            "\n".join(json.dumps({"said": t, "mood": label or None}) for t, label in rows)
        )
    else:
        mark = {"csv": ",", "tsv": "\t"}[kind]
        lines = [mark.join((f'"{text}"', label)) for text, label in rows]
        file.write_text("\n".join([mark.join(("said", "mood")), *lines]))
    found = sources.text_table(
        "train", root=root, text="said", label="mood", tokenizer=vocabulary, max_length=8
    )
    assert found.target == data.Classes(2, ("bad", "good"))
    of = {tuple(numbers(text)): ["bad", "good"].index(y) if y else -1 for text, y in rows}
    assert dict(zip(map(tuple, read(found)), found.labels.tolist(), strict=True)) == of


def test_commas_in_a_sentence_are_no_columns(root, vocabulary):
    table(root, ['"a film, a film; fine",1', '"dull, dull; dull, dull",0'])
    found = sources.text_table("train", root=root, tokenizer=vocabulary, max_length=12)
    assert sorted(found.labels.tolist()) == [0, 1]


def test_scores_of_pairs(root, vocabulary):
    table(root, [f"{a},{a} fine,{i / 2}" for i, a in enumerate(LINES)], header="x,y,score")
    found = sources.text_table(
        "train",
        root=root,
        text=["x", "y"],
        label="score",
        target="values",
        tokenizer=vocabulary,
        max_length=16,
    )
    assert found.target == data.Values(1)
    of = dict(zip((np.arange(6) / 2).tolist(), LINES, strict=True))
    second = found.inputs()["second"]
    for tokens, begin, (value,) in zip(read(found), second, found.labels, strict=True):
        assert tokens[:begin] == numbers(of[value])
        assert tokens[begin:] == numbers(f"{of[value]} fine")[1:]


def test_any_number_of_classes(root, vocabulary):
    how = {"tokenizer": vocabulary, "max_length": 8, "target": "several"}
    table(root, ["a film,1,0", "dull,1,1", "fine,,", "a,0,0"], header="text,sad,slow")
    found = sources.text_table("train", root=root, label=["sad", "slow"], **how)
    assert found.target == data.Several(2, ("sad", "slow"))
    of = {tuple(own): y.tolist() for own, y in zip(read(found), found.labels, strict=True)}
    assert of[tuple(numbers("dull"))] == [1, 1]
    assert of[tuple(numbers("a"))] == [0, 0]
    assert found.shown.sum() == 3
    (root / "all.csv").unlink()
    lists = [["slow"], ["sad", "slow"], None, []]
    lines = [json.dumps({"text": t, "label": y}) for t, y in zip(LINES, lists, strict=False)]
    (root / "all.jsonl").write_text("\n".join(lines))
    found = sources.text_table("train", root=root, **how)
    assert found.target == data.Several(2, ("sad", "slow"))
    of = {tuple(own): y.tolist() for own, y in zip(read(found), found.labels, strict=True)}
    assert of[tuple(numbers(LINES[1]))] == [1, 1]
    assert of[tuple(numbers(LINES[3]))] == [0, 0]
    with pytest.raises(BadInput, match=r"^label: 'slow' is no class \(line 1 of all.jsonl\)"):
        sources.text_table("train", root=root, names=["sad", "long"], **how)
    (root / "all.jsonl").write_text('{"text": "a", "label": "sad"}')
    with pytest.raises(BadInput, match=r"^label: 'sad' in label is no list of names"):
        sources.text_table("train", root=root, **how)


def test_splits_by_file_by_column_and_by_share(root, vocabulary):
    how = {"tokenizer": vocabulary, "max_length": 8}
    for split, some in (("train", LINES[:4]), ("test", LINES[4:])):
        (root / f"{split}.txt").write_text("\n".join(some))
    assert len(sources.lines("test", root=root, **how)) == 2
    assert len(sources.lines("train+test", root=root, **how)) == 6
    assert len(sources.lines("train[:50%]", root=root, **how)) == 2
    rows = [f"{text},{'test' if i > 3 else 'train'}" for i, text in enumerate(LINES)]
    file = table(root, rows, "one.csv", "text,part") / "one.csv"
    found = sources.text_table("test", root=file, label=None, split_column="part", **how)
    assert sorted(read(found)) == sorted(map(numbers, LINES[4:]))
    many = root / "many"
    many.mkdir()
    (many / "all.txt").write_text(
        "\n".join("a " * (1 + i % 40) + "fine " * (i % 7) for i in range(200))
    )
    how = {"root": many, "test_share": 0.25, "tokenizer": vocabulary, "max_length": 64}
    train, test = (sources.lines(split, **how) for split in ("train", "test"))
    assert len(train) + len(test) == 200
    assert not {*map(tuple, read(train))} & {*map(tuple, read(test))}  # copies are on one side
    with pytest.raises(BadInput, match="give test_share"):
        sources.lines("test", **{**how, "test_share": 0.0})


def test_an_id_is_the_same_whatever_else_there_is(root, vocabulary):
    def ids(lines):
        (root / "train.txt").write_text("\n".join(lines))
        found = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
        ordered = {}
        for tokens, number in zip(read(found), found.ids.tolist(), strict=True):
            ordered.setdefault(tuple(tokens), set()).add(number)
        return ordered

    some, more = ids([*LINES, LINES[0]]), ids(["a fine dull film", *LINES[::-1], LINES[0]])
    assert {key: more[key] for key in some} == some
    assert len(some[tuple(numbers(LINES[0]))]) == 2


def prepared(folder, sentences, labels=None, label=None):
    features = {
        "sentence": tfds.features.Text(),
        "label": label or tfds.features.ClassLabel(num_classes=2),
    }
    labels = [i % 2 for i in range(len(sentences))] if labels is None else labels
    rows = [{"sentence": s, "label": y} for s, y in zip(sentences, labels, strict=True)]
    prepared_sets.write(folder / "moods" / "1.0.0", features, {"train": [rows[:2], rows[2:]]})
    return str(folder)


def test_prepared_sets_keep_their_order(tmp_path, vocabulary):
    folder = prepared(tmp_path / "tfds", LINES)
    how = {"set": "moods", "data_dir": folder, "tokenizer": vocabulary, "max_length": 8}
    found = sources.tfds_text("train", **how)
    assert read(found) == list(map(numbers, LINES))
    assert found.labels.tolist() == [0, 1] * 3
    assert found.target == data.Classes(2)
    part = sources.tfds_text("train[:50%]", **how)
    assert read(part) == list(map(numbers, LINES[:3]))
    assert part.ids.tolist() == found.ids.tolist()[:3]


def test_prepared_scores(tmp_path, vocabulary):
    scores = [0.5 * i for i in range(6)]
    folder = prepared(tmp_path / "tfds", LINES, scores, tfds.features.Scalar(np.float32))
    found = sources.tfds_text(
        "train", set="moods", data_dir=folder, tokenizer=vocabulary, max_length=8
    )
    assert found.labels[:, 0].tolist() == scores


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_scores_that_are_not_published_are_none(tmp_path, vocabulary, dtype):
    """All tests of GLUE have -1 in their place: no error is one of that. A single -1 is a score."""
    for name, scores, known in (("a", [-1] * 6, False), ("b", [-1, 0, 1, 2, 3, 4], True)):
        folder = prepared(tmp_path / name, LINES, scores, tfds.features.Scalar(dtype))
        how = {"set": "moods", "data_dir": folder, "tokenizer": vocabulary, "max_length": 8}
        found = sources.tfds_text("train", **how)
        assert found.target == data.Values()
        assert found.shown.all() if known else not found.shown.any()
        if known:
            assert found.labels[:, 0].tolist() == scores


def test_a_trained_tokenizer_is_one_of_the_training_split_and_the_same_in_every_process(root):
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "rstn"]
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(words, 8)) for _ in range(300)]
    (root / "train.txt").write_text("\n".join(lines))
    (root / "test.txt").write_text("zzzz\n")
    script = (
        "import hashlib\nfrom kdjax.data import sources\n"
        f"for kind, vocab in (('wordpiece', 120), ('byte_bpe', 340)):\n"
        "    how = sources.Trained(train=kind, vocab=vocab)\n"
        f"    found = sources.lines('train', root={str(root)!r}, tokenizer=how, max_length=64)\n"
        "    print(hashlib.sha256(found.beside['tokenizer.json']).hexdigest())\n"
    )
    ran = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    ]
    assert ran[0] == ran[1]
    how = sources.Trained(train="wordpiece", vocab=120)
    test = sources.lines("test", root=root, tokenizer=how, max_length=64)
    said = json.loads(test.beside["tokenizer.json"])
    assert len(said["model"]["vocab"]) == 120 == test.fields["tokens"].below
    assert read(test)[0][1] == said["model"]["vocab"]["[UNK]"]  # it has never seen a z


def test_a_later_start_reads_no_text(root, vocabulary, tmp_path, monkeypatch):
    (root / "train.txt").write_text("\n".join(LINES))
    folder = tmp_path / "records"

    def start(**how):
        kept = data.Kept(folder)
        how = {"root": root, "tokenizer": vocabulary, "max_length": 8, "kept": kept, **how}
        found = sources.lines("train", **how)
        kept.write()
        return found

    trained = {"tokenizer": sources.Trained(train="wordpiece", vocab=60)}
    first, own = start(), start(**trained)
    with monkeypatch.context() as changed:
        changed.setattr(of_texts, "_tokenised", None)
        changed.setattr(tokenizing, "train", None)
        for found, before in ((start(), first), (start(**trained), own)):
            assert found.fingerprint == before.fingerprint
            assert read(found) == read(before)
            assert found.ids.tolist() == before.ids.tolist()
            assert found.target == before.target
        for how in ({"max_length": 9}, {"truncate": True}):  # another thing is made anew
            with pytest.raises(TypeError):
                start(**how)
        vocabulary.write_text("\n".join((*WORDS, "new")))
        with pytest.raises(TypeError):
            start()
    (root / "train.txt").write_text("\n".join(LINES[:4]))
    assert len(start()) == 4


def test_another_tokenizer_is_another_fingerprint_even_if_no_token_is_another(root, vocabulary):
    (root / "train.txt").write_text("a film")
    first = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
    vocabulary.write_text("\n".join((*WORDS[:-1], "other")))
    other = sources.lines("train", root=root, tokenizer=vocabulary, max_length=8)
    assert read(first) == read(other)
    assert first.fields == other.fields
    assert first.fingerprint != other.fingerprint


def test_what_is_too_long_is_cut_where_that_is_asked_for(root, vocabulary):
    (root / "train.txt").write_text("\n".join(LINES))
    how = {"root": root, "tokenizer": vocabulary, "max_length": 4}
    line = (
        r"^max_length: 4, and .* has 4 texts of up to 6 tokens \(line 1 of train.txt, line 3 of"
        r" train.txt, line 4 of train.txt, line 5 of train.txt\); give 6, or set truncate=True$"
    )
    with pytest.raises(BadInput, match=line):
        sources.lines("train", **how)
    found = sources.lines("train", **how, truncate=True)
    cut = [[*own[:3], WORDS.index("[SEP]")] if len(own) > 4 else own for own in map(numbers, LINES)]
    assert sorted(read(found)) == sorted(cut)
    assert found.notes == (f"cut to 4 tokens, 4 texts of {root}",)


def test_empty_texts_are_refused_or_left_out(root, vocabulary):
    table(root, ["a film,1", '"  ",0', ",0", "dull,1"])
    how = {"root": root, "tokenizer": vocabulary, "max_length": 4}
    with pytest.raises(
        BadInput, match=r"^root: 2 texts of .* without a letter \(line 3 of all.csv"
    ):
        sources.text_table("train", **how)
    found = sources.text_table("train", **how, skip_empty=True)
    assert sorted(read(found)) == sorted(map(numbers, ["a film", "dull"]))
    assert found.labels.tolist() == [1, 1]
    assert found.notes[0].startswith("skipped, 2 texts")


def _lines(content):
    return lambda root: (root / "train.txt").write_bytes(content)


def _csv(*rows, header="text,label"):
    return lambda root: table(root, rows, header=header)


def _json(*rows):
    return lambda root: (root / "a.jsonl").write_text("\n".join(rows))


FAULTS = {
    "nothing in it": (
        "lines",
        _lines(b"fine\n" + "\u200b".encode() + b"\n"),
        {},
        r"root: 1 text of .* of which the tokenizer makes nothing \(line 2 of train.txt\); mend or",
    ),
    "nothing in one of a pair": (
        "text_table",
        _csv("a,fine,1", "film,\u200b,0", header="a,b,label"),
        {"text": ["a", "b"]},
        r"root: 1 text of .* of which the tokenizer makes nothing \(line 3 of all.csv\)",
    ),
    "lines that end otherwise": (
        "lines",
        _lines(b"a film\rfine\r"),
        {},
        "root: line 1 of train.txt has carriage returns within it",
    ),
    "a table for lines": (
        "lines",
        lambda root: (root / "a.csv").write_text("a"),
        {"root": "a.csv"},
        "root: .*a.csv is none of files of lines; their names end in .txt",
    ),
    "half of a character": (
        "text_table",
        _json('{"text": "a", "label": 1}', '{"text": "a \\ud83d", "label": 1}'),
        {},
        r"root: line 2 of a.jsonl has half of a character \(.ud83d\)",
    ),
    "a column twice": (
        "text_table",
        _csv("a,b,1", header="text,text,label"),
        {},
        "text: .*all.csv has 2 columns 'text'; call the others otherwise",
    ),
    "rows within a quotation": (
        "text_table",
        lambda root: (root / "a.tsv").write_text('label\ttext\n1\t"a\n0\tdull\n1\tfine"\n0\ta\n'),
        {},
        "root: lines 2 to 4 of a.tsv are one cell with tabs in it",
    ),
    "no end of a quotation": (
        "text_table",
        _csv("a,1", '"a" b,0'),
        {},
        "root: what follows line 2 of all.csv cannot be read",
    ),
    "an integer that is none": (
        "text_table",
        _csv("a,0", "a,1", "a,l"),
        {},
        r"label: 'l' in label is no integer \(line 4 of all.csv\), and '0' is one; mend it; or give",
    ),
    "a name with a space": (
        "text_table",
        _csv("a,good", "a,bad", "a,good "),
        {},
        r"label: 'good ' in label has spaces around it \(line 4 of all.csv\)",
    ),
    "a number of no class": (
        "text_table",
        _csv("a,0", "a,5"),
        {"names": ["x", "y"]},
        "label: label 5 of .* is out of range; 2 classes are 0 to 1",
    ),
    "no finite number": (
        "text_table",
        _csv("a,0.5", "a,1e39"),
        {"target": "values"},
        r"label: '1e39' in label is not finite \(line 3 of all.csv\)",
    ),
    "half of the numbers": (
        "text_table",
        _csv("a,1,2", "a,1,", header="text,p,q"),
        {"target": "values", "label": ["p", "q"]},
        "label: line 3 of all.csv has 1 of 2 numbers; give all of them, or none",
    ),
    "no class in any row": (
        "text_table",
        _json('{"text": "a", "label": []}', '{"text": "a", "label": null}'),
        {"target": "several"},
        "label: no row of .* has a class; give names",
    ),
    "a split in two ways": (
        "text_table",
        _csv("a,0,train", "a,1,Train", header="text,label,s"),
        {"split_column": "s"},
        "split_column: line 2 of all.csv has 'train' in s, and others 'Train'",
    ),
    "a share of what is split": (
        "lines",
        lambda root: [(root / f"{n}.txt").write_text("a film") for n in ("train", "test")],
        {"tokenizer": sources.Trained(train="wordpiece", vocab=40), "test_share": 0.5},
        "test_share: .* has test, train, which say it; leave it out",
    ),
    "no utf-8": (
        "lines",
        _lines(b"fine\n\xff\xfea"),
        {},
        r"root: line 2 of train.txt is not UTF-8 \(b",
    ),
    "no file": ("lines", lambda root: None, {}, "root: .* has no files of lines"),
    "nothing": ("lines", _lines(b""), {}, "root: .* has no texts"),
    "no json": (
        "text_table",
        lambda root: (root / "a.jsonl").write_text("{"),
        {},
        "root: line 1 of a.jsonl is no JSON",
    ),
    "no column": (
        "text_table",
        _csv("a,1", header="txt,label"),
        {},
        "text: .* has no column 'text'",
    ),
    "no text": (
        "text_table",
        lambda root: (root / "a.jsonl").write_text('{"text": 5, "label": 1}'),
        {},
        r"text: 5 in text is no text \(line 1 of a.jsonl\)",
    ),
    "a class that is none": (
        "text_table",
        _csv("a,1", "a,3"),
        {"classes": 2},
        "classes: 2, and .* has 4; give 4",
    ),
    "a name that is none": (
        "text_table",
        _csv("a,x", "a,z"),
        {"names": ["x", "y"]},
        "label: 'z' of .* is no class",
    ),
    "no number": (
        "text_table",
        _csv("a,x"),
        {"target": "values"},
        r"label: 'x' in label is no number \(line 2 of all.csv\)",
    ),
    "a number as Python alone writes it": (
        "text_table",
        _csv("a,1_0"),
        {"target": "values"},
        r"label: '1_0' in label is no number \(line 2 of all.csv\)",
    ),
    "true as a number": (
        "text_table",
        _json('{"text": "a", "label": 2.5}', '{"text": "b", "label": true}'),
        {"target": "values"},
        r"label: True in label is no number \(line 2 of a.jsonl\)",
    ),
    "a fraction as a class": (
        "text_table",
        _json('{"text": "a", "label": "2"}', '{"text": "b", "label": 1.5}'),
        {"classes": 3},
        "label: 1.5 of .* is no class; give names, or integers from 0",
    ),
    "three texts": ("text_table", _csv("a,1"), {"text": ["a", "b", "c"]}, "text: 3 columns"),
    "no length": ("lines", _lines(b"a"), {"max_length": None}, "max_length: None; give the most"),
    "no room": (
        "lines",
        _lines(b"a"),
        {"max_length": 2},
        "max_length: 2 leaves no room for a text",
    ),
    "no tokenizer": (
        "lines",
        _lines(b"a"),
        {"tokenizer": "gone.json"},
        "tokenizer: gone.json is not",
    ),
    "too few tokens": (
        "lines",
        _lines(b"a fine film"),
        {"tokenizer": sources.Trained(train="wordpiece", vocab=10)},
        "tokenizer.vocab: 10, and the letters of train alone make 17 tokens; give more",
    ),
    "a split to train on that is none": (
        "lines",
        _lines(b"a fine film"),
        {"tokenizer": sources.Trained(train="wordpiece", split="trian")},
        "tokenizer.split: split 'trian': .* has train",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_wrong_is_one_line(root, vocabulary, case):
    kind, write, how, line = FAULTS[case]
    write(root)
    given = {"tokenizer": vocabulary, "max_length": 8, **how}
    with pytest.raises(BadInput, match=f"^{line}") as refused:
        getattr(sources, kind)("train", **{**given, "root": root / given.get("root", "")})
    assert "\n" not in str(refused.value)


def test_what_is_left_out_is_what_the_tokenizer_makes_nothing_of(root, vocabulary):
    """Unknown words are texts; nothing but what begins and ends one is none, of a pair on either side."""
    rows = ["a,film,1", "\u200b,film,2", "dull,\u200b\u200c,3", "\u4e2d,films,4", "[PAD],a,5"]
    table(root, rows, header="a,b,label")
    how = {"root": root, "tokenizer": vocabulary, "max_length": 8, "text": ["a", "b"]}
    found = sources.text_table("train", **how, skip_empty=True)
    assert sorted(found.labels.tolist()) == [1, 4]
    assert found.notes == (
        f"skipped, 3 texts of {root} of which the tokenizer makes nothing (line 3 of all.csv, line 4 of "
        "all.csv, line 6 of all.csv)",
    )


def test_the_second_text_begins_where_it_does_also_where_tokens_have_one_type(root, tmp_path):
    """RoBERTa's pairs are <s> A </s></s> B </s>, all of type 0."""
    own = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(ROBERTA)}, unk_token="<unk>")
    )
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>"])
    own.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 3), ("<s>", 2))
    own.save(str(tmp_path / "tokenizer.json"))
    table(root, ["a film,fine,1", "a,film a,2"], header="a,b,label")
    found = sources.text_table(
        "train", root=root, tokenizer=tmp_path / "tokenizer.json", max_length=9, text=["a", "b"]
    )
    inputs, labels = found.inputs(), found.labels.tolist()
    for label, second, tokens in ((1, 5, [2, 4, 5, 3, 3, 6, 3]), (2, 4, [2, 4, 3, 3, 5, 4, 3])):
        row = labels.index(label)
        assert inputs["tokens"][row, : len(tokens)].tolist() == tokens
        assert inputs["second"][row] == second


def test_texts_that_are_trained_and_tested_on_are_counted(root, vocabulary):
    table(root, ["a film,1", "dull,0", "dull,0", "films,1"], name="train.csv")
    table(root, ["dull,0", "A film,1", "fine,1", "films,0"], name="test.csv")
    found = sources.text_table("test", root=root, tokenizer=vocabulary, max_length=8)
    assert found.notes == (f"2 texts of {root} in test and in train",)
    assert len(found) == 4


def test_a_mark_of_the_order_of_bytes_is_no_part_of_a_vocabulary(root, vocabulary):
    (root / "train.txt").write_text("\n".join(LINES))
    how = {"root": root, "tokenizer": vocabulary, "max_length": 9}
    plain = sources.lines("train", **how)
    vocabulary.write_text("\ufeff" + vocabulary.read_text())
    assert sources.lines("train", **how).fingerprint == plain.fingerprint


def test_labels_that_are_numbers_of_other_names_are_refused(root, vocabulary):
    """Each file may say what its classes are called: all have to say the same."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    for split, names in (("train", ["bad", "good"]), ("test", ["good", "bad"])):
        said = json.dumps({"info": {"features": {"label": {"names": names}}}})
        found = pa.table({"text": ["a film", "dull"], "label": [1, 0]})
        pq.write_table(
            found.replace_schema_metadata({"huggingface": said}), root / f"{split}.parquet"
        )
    how = {"root": root, "tokenizer": vocabulary, "max_length": 9}
    line = r"^label: train.parquet names its classes bad, good, and others good, bad; say names"
    with pytest.raises(BadInput, match=line):
        sources.text_table("train", **how)
    found = sources.text_table("train", **how, names=["bad", "good"])
    assert found.target.names == ("bad", "good")


def test_a_tokenizer_of_a_repository_is_read_from_the_local_cache(
    root, vocabulary, tmp_path, monkeypatch
):
    why = "huggingface_hub is not installed (extra: hub)"
    constants = pytest.importorskip("huggingface_hub.constants", reason=why)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (root / "train.txt").write_text("a fine film")
    commit = "c" * 40
    for name, file in (("with", "vocab.txt"), ("without", "config.json")):
        kept = tmp_path / "hub" / f"models--owner--{name}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text(commit)
        (kept / "snapshots" / commit).mkdir(parents=True)
        shutil.copy(vocabulary, kept / "snapshots" / commit / file)
    found, local = (
        sources.lines("train", root=root, tokenizer=tokenizer, max_length=8)
        for tokenizer in ("hf:owner/with", vocabulary)
    )
    np.testing.assert_array_equal(found.inputs()["tokens"], local.inputs()["tokens"])
    assert found.fingerprint == local.fingerprint
    for tokenizer, line in (
        ("hf:owner/without@v2", "run `hf download owner/without --revision=v2 --local-dir=DIR`"),
        ("hf:owner/without", "copy DIR here and give it as the tokenizer"),
        ("hf:owner", "'hf:owner' names no repository"),
    ):
        with pytest.raises(BadInput, match=f"^tokenizer: .*{re.escape(line)}"):
            sources.lines("train", root=root, tokenizer=tokenizer, max_length=8)


TOKENIZERS = {
    "no JSON": ("tokenizer.json", "{", "is no tokenizer"),
    "twice": ("vocab.txt", "\n".join((*WORDS, "film")), "has 'film' twice"),
    "no unknown": ("vocab.txt", "film\n[CLS]\n[SEP]", r"has no \[UNK\]"),
    "no merges": ("vocab.json", "{}", "and merges.txt cannot be read"),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_what_is_no_tokenizer(root, tmp_path, case):
    name, content, line = TOKENIZERS[case]
    (root / "train.txt").write_text("a")
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / name).write_text(content)
    with pytest.raises(BadInput, match=f"^tokenizer: .*{line}"):
        sources.lines("train", root=root, tokenizer=folder, max_length=8)


def test_faults_of_prepared_sets(tmp_path, vocabulary):
    folder = prepared(tmp_path / "tfds", [*LINES[:3], b"\xff"])
    how = {"set": "moods", "data_dir": folder, "tokenizer": vocabulary, "max_length": 8}
    with pytest.raises(BadInput, match=r"^root: record 1 of .*array_record.* is not UTF-8"):
        sources.tfds_text("train", **how)
    for changes, line in (
        ({"set": "mood"}, "set: no mood in"),
        ({"text": "sentense"}, "text: moods has no column 'sentense': it has label, sentence"),
        ({"text": "label"}, "text: 'label' of moods is ClassLabel"),
        ({"label": "sentence"}, "label: 'sentence' of moods is no ClassLabel"),
        ({"test_share": 0.5}, "test_share: prepared sets say their splits"),
    ):
        with pytest.raises(BadInput, match=f"^{line}"):
            sources.tfds_text("train", **{**how, **changes})


@pytest.mark.skipif("KDJAX_DATA_DIR" not in os.environ, reason="no prepared sets")
def test_sst2_sentences():
    folder = os.environ["KDJAX_DATA_DIR"]
    if not os.path.isdir(os.path.join(folder, "sst2_sentences")):
        pytest.skip("sst2_sentences is not prepared")
    how = {"set": "sst2_sentences", "data_dir": folder, "max_length": 96}
    tokenizer = sources.Trained(train="wordpiece", vocab=2000)
    found = sources.tfds_text("test", tokenizer=tokenizer, **how)
    assert len(found) == 1821
    assert found.fields["tokens"].below == 2000
    assert found.target == data.Classes(2, ("negative", "positive"))
