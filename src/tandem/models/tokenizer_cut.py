"""Where a long text may be cut before it is tokenized, so that the tokens kept are those of the whole text.

A megabyte of text costs a third of a second to tokenize, and a model keeps 256 or 512 tokens of it. A prefix (suffix)
gives the same first (last) tokens when the tokenizer treats the text on both sides of the cut by itself. That holds for
tokenizers whose steps are all local around the cut:

* normalizers that look at one character, or one character with its combining marks, at a time;
* a pre-tokenizer that always splits there, before the model sees a word;
* no added token that could reach across it.

A tokenizer with any other step is not cut, however long the text. Proven by reading, checked against whole texts by
tests/property.
"""

from __future__ import annotations

import re
import string
from typing import Any

import msgspec
from tokenizers import Tokenizer

from tandem.types import Direction

# Letters and digits that no normalizer drops or turns into white space or a combining mark.
_SOLID = (
    "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a1\u03a3-\u03a9\u03b1-\u03c9\u0400-\u0481\u048a-\u052f"
    "\u0531-\u0556\u0561-\u0586\u05d0-\u05ea\u0620-\u063a\u0641-\u064a\u0904-\u0939\u0e01-\u0e2e\u10d0-\u10f0"
    "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)
_IDEOGRAPHS = "\u4e00-\u9fff"
# As stable as the letters, and punctuation to BERT: all of ASCII's, and of Unicode's (categories P*) the common.
_PUNCTUATION = string.punctuation + "¡¿«»–—‘’“”…、。「」『』《》！（），．：；？"
_SPACES = " \n\t\u3000"

_LOCAL_NORMALIZERS = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
)
# These drop white space, so that a word does not know what was before it ...
_WORD_SPLITTERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
# ... and these keep a space as the start of the word after it.
_SPACE_SPLITTERS = frozenset({"ByteLevel", "Metaspace"})
_REFINERS = _WORD_SPLITTERS | _SPACE_SPLITTERS | {"Digits", "Punctuation"}


def cut_points(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """A pattern whose matches start where a text may be cut, None when no cut can be shown to change nothing."""
    normalizer = _state(tokenizer.normalizer)
    splitter = _splitter(_state(tokenizer.pre_tokenizer))
    added = list(tokenizer.get_added_tokens_decoder().values())
    random = getattr(tokenizer.model, "dropout", None)
    if splitter is None or random or not _is_local(normalizer) or any(map(_takes_space, added)):
        return None
    if splitter in _SPACE_SPLITTERS:
        # A space that belongs to a word must not be the one that an added token swallows.
        return None if any(map(_strips_at_letter, added)) else re.compile(f"(?<=[{_SOLID}]) (?=[{_SOLID}])")
    solid = _SOLID + re.escape(_PUNCTUATION)
    at_space = f"(?<=[{solid}])[{_SPACES}](?=[{solid}])"
    # Another normalizer could make an added token's characters out of others.
    if splitter != "BertPreTokenizer" or normalizer is None or normalizer["type"] != "BertNormalizer":
        return re.compile(at_space)
    alone = _stand_alone(added, ideographs=normalizer["handle_chinese_chars"])
    return re.compile(f"{at_space}|(?<=[{alone}])(?=[{solid}])|(?<=[{solid}])(?=[{alone}])")


def shorten(text: str, size: int, direction: Direction, points: re.Pattern[str]) -> str:
    """``size`` characters of the end that is kept, or up to as many more (right) or fewer (left) as it takes to a safe
    point; all of ``text`` when there is none so near. ``text`` has more than 2 * ``size``."""
    if direction is Direction.RIGHT:
        # The window bounds what a text without any safe point costs: the search holds the GIL.
        found = points.search(text, size, 2 * size)
        return text[: found.start()] if found else text
    found = points.search(text, len(text) - size)
    return text[found.start() :] if found else text


def _stand_alone(added: list[Any], *, ideographs: bool) -> str:
    """What BERT makes a word of its own, whatever is beside it: punctuation, and ideographs where its normalizer puts
    spaces around them. Without the characters of added tokens, which are found before any splitting."""
    taken = "".join(token.content for token in added)
    alone = re.escape("".join(sign for sign in _PUNCTUATION if sign not in taken))
    # An ideograph beside it keeps a single_word token from being found.
    if not ideographs or re.search(f"[{_IDEOGRAPHS}]", taken) or any(token.single_word for token in added):
        return alone
    return alone + _IDEOGRAPHS


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


def _splitter(state: dict[str, Any] | None) -> str | None:
    """The first step's type, if it always splits at a space and the later ones work on each word by itself."""
    if state is None:
        return None
    parts = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    if not parts or any(part["type"] not in _REFINERS for part in parts):
        return None
    # "first" marks the first word of a text, and a suffix has another first word.
    if any(part.get("prepend_scheme") == "first" for part in parts[1:]):
        return None
    first = parts[0]
    splits = first["type"] in _WORD_SPLITTERS | _SPACE_SPLITTERS and first.get("split", True)
    return str(first["type"]) if splits and first.get("use_regex", True) else None


def _takes_space(token: Any) -> bool:
    """Could this added token hold a single white space between other characters? A run of spaces could not."""
    content: str = token.content
    return any(map(str.isspace, content)) and (not content.isspace() or len(content) == 1)


def _strips_at_letter(token: Any) -> bool:
    content: str = token.content
    return bool((token.lstrip and content[:1].isalnum()) or (token.rstrip and content[-1:].isalnum()))
