"""Column types for JSON Lines, learned from every record: Parquet wants them before its first row.

A type is a word or a nested form, kept as plain JSON so that a job's journal can hold it:
``null bool int long float string json``, ``{"list": type}``, ``{"struct": {name: type}}``. ``int`` is at most 2**53 in
size, so it may become a float without loss; ``long`` fits int64. ``json`` is the way out wherever values disagree: the
column then holds each value as JSON text, and nothing is rounded, coerced or dropped.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from arro3.core import DataType, Field, Schema

from tandem.bulk.arrow import check_names
from tandem.errors import JobError

JsonType: TypeAlias = Any
"""str or dict, as above; the recursion is beyond what a checker says about JSON."""

MAX_COLUMNS = 2000
MAX_FIELDS, MAX_DEPTH = 200, 16
"""A struct over these is a dictionary with data for keys: JSON text suits it better than thousands of columns."""

_WORDS = {bool: "bool", float: "float", str: "string", type(None): "null"}
_EXACT_FLOAT = 1 << 53
_NUMBERS = {
    frozenset({"int", "long"}): "long",
    frozenset({"int", "float"}): "float",
}


def learn(types: dict[str, JsonType], record: dict[str, Any], where: str) -> None:
    """Widen ``types`` so that ``record`` fits. Raises JobError when there are too many columns for a table."""
    for name, value in record.items():
        known = types.get(name)
        found = _WORDS.get(type(value))
        if found is not None and found == known:
            continue  # The common case, at half the cost of the general one.
        merged = type_of(value) if known is None else merge(known, type_of(value))
        if known is None and len(types) >= MAX_COLUMNS:
            raise JobError(f"{where}: over {MAX_COLUMNS} different keys are too many columns; write .jsonl instead")
        types[name] = merged


def type_of(value: Any, depth: int = 0) -> JsonType:
    """The narrowest type of one JSON value."""
    word = _WORDS.get(type(value))
    if word is not None:
        return word
    if isinstance(value, int):
        if -_EXACT_FLOAT <= value <= _EXACT_FLOAT:
            return "int"
        return "long" if -(1 << 63) <= value < 1 << 63 else "json"
    if depth >= MAX_DEPTH:
        return "json"
    if isinstance(value, list):
        inner: JsonType = "null"
        for item in value:
            inner = merge(inner, type_of(item, depth + 1))
        return _list(inner)
    return _struct({name: type_of(item, depth + 1) for name, item in value.items()})


def merge(one: JsonType, other: JsonType) -> JsonType:
    """The narrowest type that holds both. Commutative and associative, so the order of records does not matter."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, str) and isinstance(other, str):
        return _NUMBERS.get(frozenset({one, other}), "json")
    if isinstance(one, dict) and isinstance(other, dict):
        if "list" in one and "list" in other:
            return _list(merge(one["list"], other["list"]))
        if "struct" in one and "struct" in other:
            mine, theirs = one["struct"], other["struct"]
            names = [*mine, *(name for name in theirs if name not in mine)]
            return _struct({name: merge(mine.get(name, "null"), theirs.get(name, "null")) for name in names})
    return "json"


def _list(inner: JsonType) -> JsonType:
    # A disagreement inside makes the whole value text: half a table and half text would serve nobody.
    return "json" if inner == "json" else {"list": inner}


def _struct(fields: dict[str, JsonType]) -> JsonType:
    # An empty struct has no Parquet form, and Arrow's names end at a NUL.
    if not 0 < len(fields) <= MAX_FIELDS or "json" in fields.values() or any("\0" in name for name in fields):
        return "json"
    return {"struct": fields}


def schema_of(types: dict[str, JsonType]) -> Schema:
    """The Arrow schema of ``types``; every column may be null. Raises JobError for a name that Arrow does not take."""
    check_names(types)
    return Schema([Field(name, _arrow(kind), nullable=True) for name, kind in types.items()])


def _arrow(kind: JsonType) -> DataType:
    if isinstance(kind, dict):
        if "list" in kind:
            return DataType.list(Field("item", _arrow(kind["list"]), nullable=True))
        return DataType.struct([Field(name, _arrow(inner), nullable=True) for name, inner in kind["struct"].items()])
    if kind == "bool":
        return DataType.bool()
    if kind in ("int", "long"):
        return DataType.int64()
    # Nothing but nulls becomes a string column: many readers do not know Parquet's null type.
    return DataType.float64() if kind == "float" else DataType.string()


def as_text(raw: bytes, columns: list[str]) -> bytes:
    """The JSON object ``raw`` with the values of ``columns`` turned into their own text. Null stays null."""
    record = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    for name in columns:
        value = bytes(record.get(name, b"null"))
        if value != b"null":
            record[name] = msgspec.Raw(msgspec.json.encode(value.decode("utf-8")))
    return msgspec.json.encode(record)
