from __future__ import annotations

import json
from typing import Any

import pytest

from tandem.bulk.json_types import MAX_COLUMNS, MAX_FIELDS, as_text, learn, merge, schema_of, type_of
from tandem.errors import JobError


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "bool"),
        (3, "int"),
        (-(2**53), "int"),
        (2**53 + 1, "long"),
        (2**63 - 1, "long"),
        (2**63, "json"),
        (0.5, "float"),
        ("x", "string"),
        ([], {"list": "null"}),
        ([1, None, 2.5], {"list": "float"}),
        ([1, "a"], "json"),
        ([[1], [2**60]], {"list": {"list": "long"}}),
        ({"a": 1, "b": [True]}, {"struct": {"a": "int", "b": {"list": "bool"}}}),
        ({}, "json"),
        ([{"a": 1}, {"b": "x"}], {"list": {"struct": {"a": "int", "b": "string"}}}),
        ({str(index): 1 for index in range(MAX_FIELDS + 1)}, "json"),
        ({"a\0": 1}, "json"),
    ],
)
def test_the_type_of_a_value(value: Any, kind: Any) -> None:
    assert type_of(value) == kind


def test_very_deep_values_become_text() -> None:
    value: Any = 1
    for _ in range(40):
        value = [value]
    assert type_of(value) == "json"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("int", "null", "int"),
        ("int", "long", "long"),
        ("int", "float", "float"),
        ("long", "float", "json"),
        ("bool", "int", "json"),
        ("string", "int", "json"),
        ({"list": "null"}, {"list": "string"}, {"list": "string"}),
        ({"list": "int"}, {"list": "string"}, "json"),
        ({"list": "int"}, {"struct": {"a": "int"}}, "json"),
        ({"struct": {"a": "int"}}, {"struct": {"a": "float", "b": "bool"}}, {"struct": {"a": "float", "b": "bool"}}),
        ({"struct": {"a": "int"}}, "string", "json"),
        ("json", {"list": "int"}, "json"),
    ],
)
def test_two_types_make_the_narrowest_that_holds_both(one: Any, other: Any, both: Any) -> None:
    assert merge(one, other) == both
    assert merge(other, one) == both


def test_columns_are_learned_in_order_of_appearance() -> None:
    types: dict[str, Any] = {}
    for record in ({"b": 1}, {"a": None, "b": 2.5}, {"c": [1], "a": "x"}):
        learn(types, record, "in.jsonl, line 1")
    assert list(types.items()) == [("b", "float"), ("a", "string"), ("c", {"list": "int"})]
    assert schema_of(types).names == ["b", "a", "c"]


def test_keys_without_end_are_refused() -> None:
    types: dict[str, Any] = {}
    with pytest.raises(JobError, match=r"in\.jsonl, line 7: over .* write \.jsonl"):
        learn(types, {str(index): 1 for index in range(MAX_COLUMNS + 1)}, "in.jsonl, line 7")


def test_a_name_that_arrow_can_not_hold_is_refused() -> None:
    with pytest.raises(JobError, match=r"'a\\x00' has a NUL in its name"):
        schema_of({"a\0": "int"})


def test_values_become_their_own_text() -> None:
    raw = b'{"a": [1,  2.50], "b":"\\u00e9", "c":null, "d":123456789012345678901234567890}'
    found = json.loads(as_text(raw, ["a", "b", "c", "d", "missing"]))
    assert found == {"a": "[1,  2.50]", "b": '"\\u00e9"', "c": None, "d": "123456789012345678901234567890"}
