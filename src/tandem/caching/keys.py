"""Keys: 128-bit hashes of everything that a row depends on.

Two keys lead to a row. The text key needs no tokenizer: what was asked in these very words. The token key is over what
the model would see, so texts that differ in case, in white space or past the end that is cut off meet there, without
loss.

A hash is BLAKE2b of length-prefixed fields, so that no two lists of fields read alike. It is a cryptographic one: a
tenant who could make two texts with one key could plant a row for the other text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import msgspec

from tandem.caching.base import Key
from tandem.types import Direction, TokenIds

_BYTES = 16
# Contexts are few: prompts of the model, and what callers write by hand. A caller who invents one for each request
# costs their hashing and no memory.
_MOST_CONTEXTS = 256


class KeySpace(msgspec.Struct, frozen=True, kw_only=True):
    """What all keys of one server have in common: ``model``, its fingerprint, which covers weights, tokenizer and
    pooling; ``tier``, the precision that computes."""

    model: str
    tier: str

    def namespace(self) -> bytes:
        """8 bytes that stand for it where rows of several models lie together."""
        return _begin("namespace", self.model, self.tier).digest()[:8]


class Context(msgspec.Struct, frozen=True):
    """What a request's texts have in common: whose they are, what is put before each, how long ones are cut."""

    tenant: str = ""
    prompt: str = ""
    truncate: bool = True
    direction: Direction = Direction.RIGHT


class KeyMaker:
    """Keys of one model. Not safe from several threads."""

    def __init__(self, space: KeySpace) -> None:
        self._space = space
        self._begun: dict[Context, hashlib.blake2b] = {}

    def texts(self, context: Context, texts: Sequence[str]) -> list[Key]:
        """One key a text. A lone surrogate is no text, which the tokenizer says with its index: here it only must not
        be an error."""
        begun = self._text_begun(context)
        keys = []
        for text in texts:
            state = begun.copy()
            state.update(text.encode("utf-8", "surrogatepass"))
            keys.append(state.digest())
        return keys

    def tokens(self, tenant: str, rows: Sequence[TokenIds], skips: Sequence[int] | None = None) -> list[Key]:
        """One key for what the model sees of each text, special tokens and prompt included; ``skips``: how many of its
        tokens pooling leaves out."""
        keys = []
        for index, ids in enumerate(rows):
            state = _begin("tokens", self._space.model, self._space.tier, tenant, str(skips[index] if skips else 0))
            state.update(array("i", ids).tobytes())
            keys.append(state.digest())
        return keys

    def _text_begun(self, context: Context) -> hashlib.blake2b:
        begun = self._begun.get(context)
        if begun is None:
            begun = _begin(
                "text",
                self._space.model,
                self._space.tier,
                context.tenant,
                context.prompt,
                str(context.truncate),
                context.direction.value,
            )
            if len(self._begun) >= _MOST_CONTEXTS:
                self._begun.clear()
            self._begun[context] = begun
        return begun


def _begin(*fields: str) -> hashlib.blake2b:
    state = hashlib.blake2b(digest_size=_BYTES)
    for field in fields:
        content = field.encode("utf-8", "surrogatepass")
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return state
