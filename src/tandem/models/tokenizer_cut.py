"""Where a long text may be cut before it is tokenized, so that the tokens kept are those of the whole text.

A megabyte of text costs half a second to tokenize, and a model keeps 256 or 512 tokens of it. A prefix (or suffix)
gives the same first (last) tokens when the tokenizer treats the text on both sides of the cut independently. That holds
for tokenizers whose steps are all local around a single space between two letters:

* normalizers that look at one character, or at one cluster of combining characters, at a time;
* a pre-tokenizer that always splits at such a space, before the model sees a word;
* no added token that takes in the space or reaches across it.

A tokenizer with any other step is not cut, however long the text. Checked by tests/property against whole texts.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from tokenizers import Tokenizer

from tandem.types import Direction

# Letters and digits that no normalizer drops or turns into space or into a combining character.
_SOLID = (
    "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a9\u03b1-\u03c9\u0400-\u0481\u048a-\u052f\u0531-\u0556"
    "\u0561-\u0586\u05d0-\u05ea\u0620-\u063a\u0641-\u064a\u0904-\u0939\u0e01-\u0e2e\u10d0-\u10f0\u3041-\u3096"
    "\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)
_IDEOGRAPH = "\u4e00-\u9fff"
_AT_SPACE = f"(?<=[{_SOLID}]) (?=[{_SOLID}])"
_BETWEEN_IDEOGRAPHS = f"(?<=[{_IDEOGRAPH}])(?=[{_IDEOGRAPH}])"

_LOCAL_NORMALIZERS = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
)
_SPLITTERS = frozenset({"BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit"})
_REFINERS = _SPLITTERS | {"Digits", "Punctuation"}


def cut_points(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """A pattern whose matches start where a text may be cut, None when no cut can be shown to change nothing."""
    normalizer = _state(tokenizer.normalizer)
    added = list(tokenizer.get_added_tokens_decoder().values())
    if (
        not _is_local(normalizer)
        or not _splits_at_space(_state(tokenizer.pre_tokenizer))
        or getattr(tokenizer.model, "dropout", None)
        or any(_reaches_across(token) for token in added)
    ):
        return None
    # BERT's normalizer puts a space on either side of every ideograph.
    spaced = normalizer is not None and normalizer["type"] == "BertNormalizer" and normalizer["handle_chinese_chars"]
    if spaced and not any(re.search(f"[{_IDEOGRAPH}]", token.content) for token in added):
        return re.compile(f"{_AT_SPACE}|{_BETWEEN_IDEOGRAPHS}")
    return re.compile(_AT_SPACE)


def shorten(text: str, size: int, direction: Direction, points: re.Pattern[str]) -> str:
    """About ``size`` characters of the end that is kept, cut at a safe point; all of ``text`` when there is none."""
    if direction is Direction.RIGHT:
        found = points.search(text, size)
        return text[: found.start()] if found else text
    found = points.search(text, max(0, len(text) - size))
    return text[found.start() :] if found else text


def _state(component: Any) -> dict[str, Any] | None:
    """A component's JSON, which is what its pickled state is."""
    if component is None:
        return None
    return msgspec.json.decode(component.__getstate__(), type=dict[str, Any])


def _is_local(state: dict[str, Any] | None) -> bool:
    if state is None or state["type"] in _LOCAL_NORMALIZERS:
        return True
    match state["type"]:
        case "Sequence":
            return all(_is_local(part) for part in state["normalizers"])
        case "Strip":
            # A suffix starts with the space at which it was cut, and that must stay.
            return not state.get("strip_left", True)
        case "Replace":
            # Runs of spaces; the ones we cut at stand alone.
            return bool(state.get("pattern") == {"Regex": " {2,}"})
        case _:
            return False


def _splits_at_space(state: dict[str, Any] | None) -> bool:
    if state is None:
        return False
    parts = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    if not parts or parts[0]["type"] not in _SPLITTERS or any(part["type"] not in _REFINERS for part in parts):
        return False
    # Each can be told not to split. "first" marks the first word of a text, which a suffix would move.
    scheme_of_later = {part.get("prepend_scheme") for part in parts[1:]}
    return parts[0].get("split", True) and parts[0].get("use_regex", True) and "first" not in scheme_of_later


def _reaches_across(token: Any) -> bool:
    """Could this added token hold a single space between letters, or swallow one beside it?"""
    content: str = token.content
    if " " in content and (content.strip(" ") or content == " "):
        return True
    return bool((token.lstrip and content[:1].isalnum()) or (token.rstrip and content[-1:].isalnum()))
