from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import tandem
from tandem import errors
from tandem.errors import InvalidInput, RequestError, TextTooLong
from tandem.models.tokenizer_checks import check_all_unicode, check_ids, check_strings


def test_a_shifted_error_is_the_same_one_about_another_input() -> None:
    error = TextTooLong("input 1 has 12 tokens; the limit is 1", param="input", index=1)
    assert error.shifted(512) is error
    assert (str(error), error.index, error.param) == ("input 513 has 12 tokens; the limit is 1", 513, "input")
    assert str(error.shifted(10)).startswith("input 523 has")
    assert error.about("line 7") == "line 7 has 12 tokens; the limit is 1"


def test_an_error_about_no_single_input_is_not_shifted() -> None:
    error = InvalidInput("input 1 is only a word of this message")
    assert str(error.shifted(5)) == error.about("line 7") == "input 1 is only a word of this message"
    assert error.index is None


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_strings(["a", "b", 3]),  # type: ignore[list-item]
        lambda: check_all_unicode(["a", "b", "\ud800"]),
        lambda: check_ids(2, [], 9),
        lambda: check_ids(2, [9], 9),
    ],
)
def test_the_checks_say_which_input_was_wrong(check: Callable[[], None]) -> None:
    with pytest.raises(RequestError, match=r"\Ainput 2\b") as caught:
        check()
    assert caught.value.index == 2
    assert str(caught.value.shifted(5)).startswith("input 7")


def test_every_error_is_drawn_in_the_tree() -> None:
    kinds, bases, drawn = {"TandemError"}, list[tuple[str, set[str]]](), errors.__doc__ or ""
    for file in Path(tandem.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        if file.parts[-2:] == ("server", "errors.py"):
            drawn += ast.get_docstring(tree) or ""
        classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        bases += [(one.name, {getattr(base, "id", getattr(base, "attr", "")) for base in one.bases}) for one in classes]
    while found := {name for name, parents in bases if parents & kinds} - kinds:
        kinds |= found
    assert len(kinds) > 30
    assert {name for name in kinds if not re.search(rf"\b{name}\b", drawn)} == set()


def test_a_wrong_prompt_is_no_inputs_fault() -> None:
    with pytest.raises(InvalidInput, match="prompt") as caught:
        check_all_unicode(["a"], "\ud800")
    assert caught.value.index is None
