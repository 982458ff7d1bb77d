"""What may not reach the tokenizer, and the sentence that says so to the caller."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.errors import InvalidInput


def check_strings(texts: Sequence[str]) -> None:
    """Raise InvalidInput for the first item that is no string. The library would take a pair for one item."""
    if set(map(type, texts)) <= {str}:
        return
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"input {index} is of type {type(text).__name__}; a text is a string", index=index)


def check_all_unicode(texts: Sequence[str], prompt: str = "") -> None:
    """Raise InvalidInput for the first that is not Unicode: JSON's ``"\\ud800"`` decodes to such a string."""
    _check_unicode(prompt, None)
    for index, text in enumerate(texts):
        _check_unicode(text, index)


def _check_unicode(text: str, index: int | None) -> None:
    """``index`` is None for the prompt."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        what = "prompt" if index is None else f"input {index}"
        raise InvalidInput(
            f"{what}: U+{ord(text[error.start]):04X} at character {error.start} is half of a surrogate pair, "
            "which is not text",
            index=index,
        ) from error


def check_ids(index: int, row: Sequence[int], vocab_size: int) -> None:
    """Raise InvalidInput unless ``row`` holds ids of the vocabulary alone, and one at least."""
    if not row:
        raise InvalidInput(f"input {index} is empty; a list of token ids needs at least one", index=index)
    # The types' set, the least and the greatest: three passes in C instead of a check an id in Python.
    if set(map(type, row)) == {int} and min(row) >= 0 and max(row) < vocab_size:
        return
    for value in row:
        # By type, as True is an int for isinstance.
        if type(value) is not int or not 0 <= value < vocab_size:
            raise InvalidInput(
                f"input {index}: {value!r} is no token id; ids are whole numbers from 0 to {vocab_size - 1}",
                index=index,
            )
