"""What the APIs' bodies have in common: texts or token ids, Tandem's own fields, and how a body is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Meta

from tandem.errors import InvalidInput
from tandem.server.errors import EmptyInput, NotJson, TooManyItems
from tandem.types import CacheMode, Priority

T = TypeVar("T")

# A union in msgspec has one list type, and a text has no least length there, so what a body's schema really is stands
# under this key; the specification (openapi.py) puts it in place, ``as_inputs`` and ``check_texts`` hold to it.
EXACT = "x-exact"

_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}


def _list_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Text: TypeAlias = Annotated[str, Meta(extra_json_schema={EXACT: _TEXT})]
Texts: TypeAlias = Annotated[list[str], Meta(extra_json_schema={EXACT: _list_of(_TEXT)})]
TextOrTexts: TypeAlias = Annotated[
    str | list[str], Meta(extra_json_schema={EXACT: {"anyOf": [_TEXT, _list_of(_TEXT)]}})
]
IdLists: TypeAlias = Annotated[
    list[TokenId | list[TokenId]], Meta(extra_json_schema={EXACT: {"anyOf": [_IDS, _list_of(_IDS)]}})
]
AnyInputs: TypeAlias = str | list[str | TokenId | list[TokenId]]
Inputs: TypeAlias = Annotated[
    AnyInputs,
    Meta(
        description="A text, a list of texts, one text's token ids, or a list of token id lists.",
        extra_json_schema={EXACT: {"anyOf": [_TEXT, _list_of(_TEXT), _IDS, _list_of(_IDS)]}},
    ),
]

PromptName: TypeAlias = Annotated[
    Annotated[str, Meta(min_length=1)] | None, Meta(description="A prompt of the model's, put before each text.")
]
PriorityName: TypeAlias = Literal["critical", "normal", "background"]
CacheName: TypeAlias = Literal["off", "exact", "near"]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=1, le=3_600_000)]
Dimensions: TypeAlias = Annotated[
    Annotated[int, Meta(ge=1)] | None, Meta(description="Keep this many numbers of each vector and normalise again.")
]

Truncate: TypeAlias = Annotated[
    bool | None, Meta(description="Cut over-long texts, or refuse them; null is the server's setting.")
]

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


class OwnFields(msgspec.Struct, kw_only=True):
    """Tandem's own fields, which every API takes beside its own."""

    prompt_name: PromptName = None
    normalize: Annotated[bool | None, Meta(description="False leaves vectors at the length the model gave.")] = None
    priority: Annotated[PriorityName | None, Meta(description="Which requests go first; null is normal.")] = None
    timeout_ms: Annotated[Milliseconds | None, Meta(description="Given up after this long, with 504.")] = None
    cache: Annotated[
        CacheName | None,
        Meta(description="Whose rows may answer: off, the model's alone; near, a near-duplicate's too; null is exact."),
    ] = None

    def priority_or_normal(self) -> Priority:
        return Priority.NORMAL if self.priority is None else _PRIORITIES[self.priority]

    def cache_mode(self) -> CacheMode:
        return CacheMode.EXACT if self.cache is None else CacheMode(self.cache)

    def timeout_or(self, default_s: float | None) -> float | None:
        """The deadline in seconds from now; None is no deadline."""
        return default_s if self.timeout_ms is None else self.timeout_ms / 1000


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type. Raises NotJson, or InvalidInput naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), param=_field(str(error))) from None
    except msgspec.DecodeError as error:
        raise NotJson(_why_not_json(body, error)) from None
    except UnicodeDecodeError as error:
        raise NotJson(f"the body is not valid UTF-8: byte {error.object[error.start]:#04x} is out of place") from None
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None


def as_inputs(value: AnyInputs, *, param: str, max_items: int) -> list[str] | list[list[int]]:
    """One list of texts, or one list of token id lists. Raises EmptyInput, TooManyItems, InvalidInput."""
    if not value:
        raise EmptyInput(f"`{param}` is empty", param=param)
    if isinstance(value, str):
        return [value]
    kinds = set(map(type, value))
    if kinds == {int}:
        return [cast("list[int]", value)]
    check_count(len(value), param=param, max_items=max_items)
    if kinds == {str}:
        texts = cast("list[str]", value)
        check_texts(texts, param=param)
        return texts
    if kinds != {list}:
        raise InvalidInput(f"`{param}` mixes texts, token ids and lists of token ids", param=param)
    ids = cast("list[list[int]]", value)
    if [] in ids:
        raise EmptyInput(f"`{param}[{ids.index([])}]` is empty", param=param)
    return ids


def check_texts(texts: list[str], *, param: str) -> None:
    """Raises EmptyInput when there is no text, or an empty one."""
    if not texts:
        raise EmptyInput(f"`{param}` is empty", param=param)
    if "" in texts:
        raise EmptyInput(f"`{param}[{texts.index('')}]` is empty", param=param)


def check_count(count: int, *, param: str, max_items: int) -> None:
    """Raises TooManyItems, naming the limit."""
    if count > max_items:
        raise TooManyItems(f"`{param}` has {count} items; at most {max_items} are taken in one request", param=param)


def _field(message: str) -> str | None:
    """The top-level field that a msgspec error names, as in "... - at `$.input[3]`" or "... field `input`"."""
    _, at, path = message.rpartition("`$.")
    if at:
        return path.rstrip("`").partition("[")[0].partition(".")[0]
    _, missing, name = message.rpartition("required field `")
    return name.rstrip("`") if missing else None


def _why_not_json(body: bytes, error: msgspec.DecodeError) -> str:
    if not body.strip():
        return "the body is empty; send a JSON object"
    if b"\\ud" in body.lower():
        return f"the body is not valid JSON: {error} (a lone surrogate such as \\ud800 is not a character)"
    return f"the body is not valid JSON: {error}"
