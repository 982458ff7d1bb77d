"""Texts to token ids and back, as sentence-transformers does it, and safe for many threads at once.

The library underneath keeps its truncation as state of the tokenizer, so requests that cut at different ends could not
share one. Here it never truncates: rows are cut after encoding, which gives the same ids (tests/golden).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from tokenizers import Tokenizer

from tandem.errors import InvalidInput, ModelBroken, TextTooLong
from tandem.models.folder import ModelFolder
from tandem.models.lengths import max_tokens
from tandem.models.sentence_files import Pipeline
from tandem.models.tokenizer_checks import check_all_unicode, check_ids, check_strings
from tandem.models.tokenizer_cut import cut_points, shorten
from tandem.models.tokenizer_files import load_tokenizer, pad_id, special_frame
from tandem.types import Direction, TokenIds

# Encodings cost about 150 bytes a token until their ids are taken, so a long list goes through in pieces.
_CHUNK = 64
# Characters kept per token of the limit, tried in turn; None keeps all. English has 4 to 5 to a token, so that only odd
# texts (base64, runs of white space) get past the first.
_CHARS_PER_TOKEN = (6, 48, None)
# Characters per token of the limit up to which a text is tokenized whole at once.
_LONG_TEXT = 12


class Encoded(msgspec.Struct, frozen=True):
    """``ids``: n rows, special tokens included, none empty and none over the limit.

    ``skips``: how many leading tokens of each row pooling leaves out, less than its length; None when none does.
    """

    ids: list[TokenIds]
    skips: list[int] | None = None


class Piece(msgspec.Struct, frozen=True):
    """One token of a text, as TEI's ``/tokenize`` shows it.

    ``start`` and ``stop`` are offsets into the text's UTF-8 bytes, and ``text`` is what lies between them; for a token
    that the tokenizer added, both are None and ``text`` is its name.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TokenizerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``max_tokens``: the longest row, special tokens counted. ``vocab_size``: rows of the model's token table, None
    to take the tokenizer's own count. ``include_prompt``: ``Pipeline.include_prompt``. ``pad_id`` fills batches.
    """

    max_tokens: int
    vocab_size: int | None = None
    include_prompt: bool = True
    pad_id: int = 0


class TextTokenizer:
    """One model's tokenizer. Every method may be called from any thread; none changes the object."""

    def __init__(self, tokenizer: Tokenizer, options: TokenizerOptions, *, name: str = "model") -> None:
        """``tokenizer`` must neither truncate nor pad. Raises ModelBroken when no text fits ``max_tokens``."""
        self.max_tokens = options.max_tokens
        self.pad_id = options.pad_id
        self._tokenizer = tokenizer
        self._include_prompt = options.include_prompt
        self._frame = special_frame(tokenizer, name)
        self.num_special = len(self._frame)
        if self.max_tokens <= self.num_special:
            raise ModelBroken(f"{name}: {self.max_tokens} tokens a text, and {self.num_special} of them are special")
        own_size = _own_size(tokenizer)
        self.vocab_size = min(own_size, options.vocab_size or own_size)
        self._overflows = self.vocab_size < own_size
        self._special_ids = frozenset(i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special)
        self._points = cut_points(tokenizer)
        self._long_text = _LONG_TEXT * self.max_tokens
        self._prompt_length = lru_cache(maxsize=256)(self._measure_prompt)

    @classmethod
    def load(
        cls, folder: ModelFolder, pipeline: Pipeline, *, vocab_size: int | None = None, parallel: bool = False
    ) -> TextTokenizer:
        """The folder's tokenizer; ``vocab_size`` is the rows of the model's token table.

        ``parallel`` lets one list use all cores, which is the library's own default. Off here: the cores are the
        inference engine's, and tokenizing runs beside it. The switch is the process's environment variable
        TOKENIZERS_PARALLELISM; one that is set already is left as it is. Raises ModelBroken and ModelUnsupported.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if parallel else "false")
        tokenizer = load_tokenizer(folder, do_lower_case=pipeline.do_lower_case)
        options = TokenizerOptions(
            max_tokens=max_tokens(folder, pipeline),
            vocab_size=vocab_size,
            include_prompt=pipeline.include_prompt,
            pad_id=pad_id(folder, tokenizer),
        )
        return cls(tokenizer, options, name=folder.name)

    def encode(
        self, texts: Sequence[str], *, prompt: str = "", truncate: bool, direction: Direction = Direction.RIGHT
    ) -> Encoded:
        """Tokenize ``prompt + text`` for each text; the empty text is a text.

        An over-long one is cut at ``direction``'s end, special tokens kept at both. Raises TextTooLong for it when
        ``truncate`` is off, InvalidInput for what is not text.
        """
        check_strings(texts)
        whole = [prompt + text for text in texts] if prompt else texts
        cut = frozenset[int]()
        try:
            if self._points is not None and max(map(len, whole), default=0) > self._long_text:
                # What is no text is refused, also where the fault lies in the part that is cut off.
                check_all_unicode(texts, prompt)
                rows, cut = self._ids_of_long(whole, direction if truncate else Direction.RIGHT)
            else:
                rows = self._ids(whole)
        except TypeError:
            check_all_unicode(texts, prompt)
            raise
        self._check_rows(rows)
        skip = self._prompt_length(prompt) if prompt and not self._include_prompt else 0
        return self._fit(rows, skip, cut, truncate=truncate, direction=direction)

    def from_ids(
        self,
        rows: Sequence[Sequence[int]],
        *,
        prompt: str = "",
        truncate: bool,
        direction: Direction = Direction.RIGHT,
    ) -> Encoded:
        """Take the model's own token ids. Rows that lack its special tokens get them, so ids and text agree.

        The prompt's tokens go before the row's, which is what the text gives where words part at white space (BERT,
        XLM-R). Raises InvalidInput for a row that is empty or holds anything but ids, else as ``encode``.
        """
        prefix, suffix = self._frame.prefix, self._frame.suffix
        check_all_unicode([], prompt)
        before = self._run([prompt.rstrip()], add_special_tokens=False)[0].ids if prompt else []
        framed = []
        for index, row in enumerate(rows):
            check_ids(index, row, self.vocab_size)
            content, end = list(row), len(row) - len(suffix)
            if end >= len(prefix) and content[: len(prefix)] == prefix and content[end:] == suffix:
                content = content[len(prefix) : end]
            framed.append([*prefix, *before, *content, *suffix])
        skip = len(prefix) + len(before) if prompt and not self._include_prompt else 0
        return self._fit(framed, skip, frozenset(), truncate=truncate, direction=direction)

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[Piece]:
        """The text's tokens and where each lies in it; not truncated. Raises InvalidInput for what is not text."""
        check_strings([text])
        check_all_unicode([text])
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        to_byte = _byte_offsets(text)
        pieces = []
        columns = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
        for token_id, token, (start, stop), special in columns:
            if special:
                pieces.append(Piece(token_id, token, True, None, None))
            else:
                pieces.append(Piece(token_id, text[start:stop], False, to_byte[start], to_byte[stop]))
        return pieces

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of the ids, as near as the vocabulary keeps it. Raises InvalidInput as ``from_ids`` does."""
        check_ids(0, ids, self.vocab_size)
        return str(self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def _fit(
        self, rows: list[TokenIds], skip: int, cut: frozenset[int], *, truncate: bool, direction: Direction
    ) -> Encoded:
        """Cut, in place, the rows that are over the limit. ``skip``: leading tokens of an uncut row that pooling
        leaves out. ``cut``: indexes of rows whose text was shortened before."""
        limit = self.max_tokens
        # One token is left to pool, even where prompt and text merge into fewer tokens than the prompt alone.
        skips = [min(skip, len(row) - 1) for row in rows] if skip else None
        if max(map(len, rows), default=0) <= limit:
            return Encoded(rows, skips)
        first, last = len(self._frame.prefix), len(self._frame.suffix)
        for index, row in enumerate(rows):
            surplus = len(row) - limit
            if surplus <= 0:
                continue
            if not truncate:
                count = f"more than {limit}" if index in cut else str(len(row))
                raise TextTooLong(
                    f"input {index} has {count} tokens, special tokens counted; the limit is {limit}", index=index
                )
            end = len(row) - last
            kept = row[first : end - surplus] if direction is Direction.RIGHT else row[first + surplus : end]
            rows[index] = [*row[:first], *kept, *row[end:]]
            if skips is not None:
                # Cut on the left the prompt's tokens go first, all of them where the text was shortened before.
                gone = 0 if direction is Direction.RIGHT else skip if index in cut else surplus
                skips[index] = min(max(skip - gone, min(first, skip)), limit - 1)
        return Encoded(rows, skips)

    def _ids(self, texts: Sequence[str]) -> list[TokenIds]:
        if len(texts) <= _CHUNK:
            return [encoding.ids for encoding in self._run(texts)]
        rows: list[TokenIds] = []
        for start in range(0, len(texts), _CHUNK):
            rows.extend(encoding.ids for encoding in self._run(texts[start : start + _CHUNK]))
        return rows

    def _ids_of_long(self, texts: Sequence[str], direction: Direction) -> tuple[list[TokenIds], frozenset[int]]:
        """(rows, indexes of those whose text was shortened): as ``_ids``, but over the limit only the kept end holds.

        A shortened text counts only when it is over the limit; else it is tried longer, and at last whole.
        """
        rows: list[TokenIds] = [[] for _ in texts]
        cut: set[int] = set()
        pending = list(range(len(texts)))
        for factor in _CHARS_PER_TOKEN:
            tried = [self._shorten(texts[index], factor, direction) for index in pending]
            again: list[int] = []
            for index, text, row in zip(pending, tried, self._ids(tried), strict=True):
                rows[index] = row
                if len(text) < len(texts[index]):
                    (cut.add if len(row) > self.max_tokens else again.append)(index)
            pending = again
            if not pending:
                break
        return rows, frozenset(cut)

    def _shorten(self, text: str, factor: int | None, direction: Direction) -> str:
        if factor is None or self._points is None or len(text) <= 2 * factor * self.max_tokens:
            return text
        return shorten(text, factor * self.max_tokens, direction, self._points)

    def _run(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[Any]:
        """Rust, without the GIL: the library's ``encode`` of one text holds it. ``fast`` leaves out offsets."""
        encodings: list[Any] = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return encodings

    def _measure_prompt(self, prompt: str) -> int:
        """How many leading tokens ``include_prompt: false`` leaves out: the prompt tokenized by itself, the special
        token before it counted and the one after it not, as sentence-transformers counts."""
        (row,) = self._ids([prompt])
        return len(row) - 1 if row and row[-1] in self._special_ids else len(row)

    def _check_rows(self, rows: list[TokenIds]) -> None:
        """For the few tokenizers that add no special tokens, or know more tokens than the model has rows."""
        if not self.num_special and not all(rows):
            index = rows.index([])
            raise InvalidInput(f"input {index} has no tokens, and the model needs at least one", index=index)
        if self._overflows:
            for index, row in enumerate(rows):
                check_ids(index, row, self.vocab_size)


def _own_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id; a vocabulary with holes has fewer tokens than that."""
    size = int(tokenizer.get_vocab_size())
    if tokenizer.id_to_token(size - 1) is not None and tokenizer.id_to_token(size) is None:
        return size
    return 1 + max(tokenizer.get_vocab().values())


def _byte_offsets(text: str) -> Sequence[int]:
    """Offset into the UTF-8 bytes of every character, and of the end."""
    if text.isascii():
        return range(len(text) + 1)
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + len(character.encode("utf-8")))
    return offsets
