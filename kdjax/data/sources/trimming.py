"""A tokenizer with fewer tokens: those that occur, and small ones to fall back on."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from kdjax.data.sources.tokenizing import read_text
from kdjax.files import from_json
from kdjax.types import BadInput


def trimmed(text: str, used: Int[np.ndarray, " _"]) -> tuple[str, Int64[np.ndarray, " kept"]]:
    """A tokenizer that knows fewer tokens, and the number that each of its tokens had before.

    What is left are the tokens that occur, those that stand for no text, and every single character, also
    within a word: a word that has lost its tokens falls into smaller ones. The others keep their order.
    A text of which all tokens are left becomes the same tokens as before: a WordPiece takes the longest
    token that it knows, and a BPE keeps every merge on the way to one that is left.

    Args:
      text: of the `tokenizer.json`.
      used: numbers of the tokens that occur.

    Raises:
      BadInput: it is neither a WordPiece nor a BPE.
    """
    said = from_json(text)
    model = said["model"]
    kind = model.get("type")
    vocabulary: dict[str, int] = model["vocab"] if isinstance(model.get("vocab"), dict) else {}
    if kind not in ("WordPiece", "BPE") or not vocabulary:
        raise BadInput("tokenizer", f"its model is {kind}", "a WordPiece or a BPE can be trimmed")
    added = {one["content"]: one["id"] for one in said.get("added_tokens", ())}
    known = {**vocabulary, **added}
    names = {number: name for name, number in known.items()}
    kept = {*added, *(names[number] for number in np.unique(used).tolist())}
    kept |= {name for name in vocabulary if _is_small(name, model)}
    kept |= {name for name in (model.get("unk_token"),) if name in vocabulary}
    if kind == "BPE":
        merges = [
            tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in model["merges"]
        ]
        kept = _with_parts(kept, merges)
        model["merges"] = [[*pair] for pair in merges if {*pair, "".join(pair)} <= kept]
    numbers = sorted(known[name] for name in kept)
    new = {number: i for i, number in enumerate(numbers)}
    model["vocab"] = {name: new[n] for name, n in vocabulary.items() if name in kept}
    for one in said.get("added_tokens", ()):
        one["id"] = new[one["id"]]
    _renumber(said.get("post_processor"), new)
    return read_text(json.dumps(said)), np.asarray(numbers, np.int64)


def _is_small(name: str, model: Mapping[str, Any]) -> bool:
    """Whether a token is one character, or one byte."""
    prefix = model.get("continuing_subword_prefix") or ""
    if prefix and name.startswith(prefix) and len(name) > len(prefix):
        name = name.removeprefix(prefix)
    suffix = model.get("end_of_word_suffix") or ""
    if suffix and name.endswith(suffix) and len(name) > len(suffix):
        name = name.removesuffix(suffix)
    return len(name) == 1 or (len(name) == 6 and name.startswith("<0x") and name.endswith(">"))


def _with_parts(kept: Collection[str], merges: Collection[tuple[str, ...]]) -> set[str]:
    """With all tokens that are merged on the way to one of these."""
    parts: dict[str, list[tuple[str, ...]]] = {}
    for pair in merges:
        parts.setdefault("".join(pair), []).append(pair)
    found, new = {*kept}, [*kept]
    while new:
        for pair in parts.get(new.pop(), ()):
            fresh = {*pair} - found
            found |= fresh
            new += fresh
    return found


def _renumber(processor: Any, new: Mapping[int, int]) -> None:
    """Gives the tokens that begin and end a text their new numbers, in place."""
    match processor:
        case {"type": "TemplateProcessing", "special_tokens": special}:
            for one in special.values():
                one["ids"] = [new[number] for number in one["ids"]]
        case {"type": "BertProcessing" | "RobertaProcessing"}:
            for side in ("sep", "cls"):
                name, number = processor[side]
                processor[side] = [name, new[number]]
        case {"type": "Sequence", "processors": several}:
            for one in several:
                _renumber(one, new)
