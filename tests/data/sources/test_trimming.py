"""A smaller tokenizer says what it can say as the whole one does, and falls back for the rest."""

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from kdjax.data import sources
from kdjax.data.sources import tokenizing
from kdjax.data.sources.applied_tokenizer import Tokenizer
from kdjax.data.sources.trimming import trimmed
from kdjax.types import BadInput

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

WORDS = [
    "the",
    "film",
    "is",
    "warm",
    "and",
    "funny",
    "a",
    "dull",
    "plot",
    "unbelievably",
    "moving",
    "story",
    "of",
    "believers",
    "filming",
]
CORPUS = [" ".join(np.random.default_rng(i).choice(WORDS, 12)) for i in range(60)]
HOWS = {
    "wordpiece": sources.Trained(train="wordpiece", vocab=120),
    "byte_bpe": sources.Trained(train="byte_bpe", vocab=400),
}


def tokenizer(kind):
    return tokenizing.train(CORPUS, HOWS[kind])


def used_by(text, texts):
    own = tokenizers.Tokenizer.from_str(text)
    return np.unique(np.concatenate([own.encode(one).ids for one in texts]))


KINDS = pytest.mark.parametrize("kind", HOWS)
_texts = st.lists(
    st.sampled_from([*WORDS, "films", "unmoving", "wärmer", "x", "?!", "beliefs", "2024", "the!"]),
    min_size=1,
    max_size=8,
).map(" ".join)


@KINDS
def test_a_text_whose_tokens_are_left_becomes_the_same_tokens(kind):
    whole = tokenizer(kind)
    used = used_by(whole, CORPUS[:2])
    small, numbers = trimmed(whole, used)
    before, after = (tokenizers.Tokenizer.from_str(text) for text in (whole, small))
    assert len(numbers) == after.get_vocab_size(with_added_tokens=True)
    assert len(numbers) < before.get_vocab_size(with_added_tokens=True)
    assert {*used.tolist()} <= {*numbers.tolist()}
    assert (np.diff(numbers) > 0).all()
    for number, name in enumerate(numbers.tolist()):
        assert after.id_to_token(number) == before.id_to_token(name)
    seen = []

    @hypothesis.given(_texts, st.none() | _texts)
    @hypothesis.settings(deadline=None, max_examples=150)
    def check(text, other):
        given = (text,) if other is None else (text, other)
        old, new = before.encode(*given), after.encode(*given)
        covered = {*old.ids} <= {*numbers.tolist()}
        seen.append(covered)
        if covered:
            assert numbers[new.ids].tolist() == old.ids
            assert new.type_ids == old.type_ids
        # What it cannot say in one token it says in smaller ones, and loses no letter.
        unknown = [token for token in (old.tokens, new.tokens) if "[UNK]" in token]
        if not unknown:
            assert before.decode(old.ids) == after.decode(new.ids)

    check()
    assert {*seen} == {True, False}


@KINDS
def test_what_is_left_is_small_and_every_character_is(kind):
    whole = tokenizer(kind)
    small, _ = trimmed(whole, np.zeros(0, np.int64))
    before, after = (tokenizers.Tokenizer.from_str(text).get_vocab() for text in (whole, small))
    characters = {name for name in before if len(name.removeprefix("##")) == 1}
    special = {
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "<mask>",
    }
    assert {*after} == characters | (special & {*before})
    # All of it again is nothing new.
    again, numbers = trimmed(small, np.arange(len(after)))
    assert again == small
    assert numbers.tolist() == [*range(len(after))]


@KINDS
def test_it_is_the_same_every_time_and_knows_its_frame(kind):
    whole = tokenizer(kind)
    used = used_by(whole, CORPUS[:1])
    small, numbers = trimmed(whole, used)
    assert trimmed(whole, used[::-1])[0] == small
    before, after = Tokenizer(whole), Tokenizer(small)
    assert numbers[list(after.frame)].tolist() == [*before.frame]
    assert numbers[after.mask] == before.mask


def test_what_frames_a_text_is_renumbered_whatever_writes_it():
    said = json.loads(tokenizer("wordpiece"))
    names = ("[SEP]", "[CLS]")
    vocabulary = said["model"]["vocab"]
    order = sorted(vocabulary, key=lambda name: name in ("[CLS]", "[SEP]"))  # at the end
    said["model"]["vocab"] = {name: i for i, name in enumerate(order)}
    for one in said["added_tokens"]:
        one["id"] = order.index(one["content"])
    sep, cls = ([name, order.index(name)] for name in names)
    plain = {"type": "BertProcessing", "sep": sep, "cls": cls}
    for processor in (plain, {"type": "Sequence", "processors": [plain]}):
        whole = json.dumps({**said, "post_processor": processor})
        small, numbers = trimmed(whole, used_by(whole, CORPUS[:1]))
        before, after = (tokenizers.Tokenizer.from_str(text) for text in (whole, small))
        found = after.encode(CORPUS[0])
        assert (found.tokens[0], found.tokens[-1]) == ("[CLS]", "[SEP]")
        assert numbers[found.ids].tolist() == before.encode(CORPUS[0]).ids


def test_another_model_is_refused():
    own = tokenizers.Tokenizer(tokenizers.models.Unigram([("a", 0.0), ("b", -1.0)], unk_id=0))
    with pytest.raises(BadInput, match=r"^tokenizer: its model is Unigram; a WordPiece or a BPE"):
        trimmed(own.to_str(), np.zeros(1, np.int64))
