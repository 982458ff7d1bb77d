"""The error tree on the wire: one table of status codes, one function per API that draws the body.

The server's own errors, which only exist because there is HTTP, hang below the tree's first branch::

    RequestError
    ├── NotJson             the body is not JSON at all
    ├── EmptyInput          nothing to embed
    ├── TooManyItems        a list is over its limit
    ├── UnsupportedMedia    a content type or encoding that is not taken
    ├── WrongModelType      a route for another kind of model
    ├── NoSuchRoute         the path is not served
    ├── WrongMethod         the path is served, with another method
    ├── SlowClient          the body took too long to arrive
    └── ClientLeft          the connection is gone; no one reads the answer
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from tandem import errors
from tandem.errors import RequestError, ServiceError, TandemError
from tandem.server.base import Api, Headers, Reply


class NotJson(RequestError):
    """The body is not JSON."""


class EmptyInput(RequestError):
    """Nothing to embed."""


class TooManyItems(RequestError):
    """A list is over its limit."""


class UnsupportedMedia(RequestError):
    """The body has a content type or encoding that is not taken."""


class WrongModelType(RequestError):
    """The route is for another kind of model."""


class NoSuchRoute(RequestError):
    """The path is not served."""


class WrongMethod(RequestError):
    """The path is served with other methods. ``allowed`` names them."""

    def __init__(self, message: str, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class SlowClient(RequestError):
    """The body did not arrive in time."""


class ClientLeft(RequestError):
    """The client closed the connection before its answer was ready."""


class OpenAIErrorBody(msgspec.Struct):
    """``type`` is the family, ``code`` the case, ``param`` the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """An error as OpenAI's API draws it."""

    error: OpenAIErrorBody


class TeiError(msgspec.Struct):
    """An error as text-embeddings-inference draws it."""

    error: str
    error_type: str


class CohereError(msgspec.Struct):
    """An error as Cohere's API draws it."""

    id: str
    message: str


class _Case(msgspec.Struct, frozen=True):
    """One row: what each API calls the case. ``tei`` 0 and ``cohere`` 0 mean OpenAI's status."""

    status: int
    kind: str
    code: str | None
    tei: int = 0
    tei_type: str = "Validation"
    cohere: int = 0


_BAD = "invalid_request_error"
_SERVER = "server_error"

# TEI's codes come from its router: 413 for what it validates itself, 422 for JSON of the wrong shape, 424 for a failed
# forward pass, 429 when overloaded. Its ``error_type`` is written with a capital, whatever its documentation says.
CASES: dict[type[BaseException], _Case] = {
    errors.InvalidInput: _Case(400, _BAD, "invalid_value", tei=422),
    errors.TextTooLong: _Case(400, _BAD, "context_length_exceeded", tei=413),
    errors.PayloadTooLarge: _Case(413, _BAD, "payload_too_large"),
    errors.UnknownModel: _Case(404, _BAD, "model_not_found"),
    errors.Unauthorized: _Case(401, _BAD, "invalid_api_key", tei_type="Unauthorized"),
    errors.Forbidden: _Case(403, _BAD, "forbidden", tei_type="Unauthorized"),
    NotJson: _Case(400, _BAD, "invalid_json"),
    EmptyInput: _Case(400, _BAD, "empty_input", tei_type="Empty"),
    TooManyItems: _Case(400, _BAD, "too_many_items", tei=413),
    UnsupportedMedia: _Case(415, _BAD, "unsupported_media_type"),
    WrongModelType: _Case(400, _BAD, "wrong_model_type", tei=424, tei_type="Backend"),
    NoSuchRoute: _Case(404, _BAD, "unknown_url", tei_type="NotFound"),
    WrongMethod: _Case(405, _BAD, "method_not_allowed"),
    SlowClient: _Case(408, _BAD, "request_timeout", tei_type="Timeout"),
    ClientLeft: _Case(499, _BAD, "client_left"),
    RequestError: _Case(400, _BAD, None),
    errors.Overloaded: _Case(429, "rate_limit_error", "overloaded", tei_type="Overloaded"),
    errors.Draining: _Case(503, _SERVER, "draining", tei_type="Unhealthy"),
    errors.NotReady: _Case(503, _SERVER, "not_ready", tei_type="Unhealthy"),
    errors.DeadlineExceeded: _Case(504, _SERVER, "deadline_exceeded", tei_type="Timeout"),
    errors.BackendFailed: _Case(500, _SERVER, "backend_failed", tei=424, tei_type="Backend"),
    ServiceError: _Case(503, _SERVER, None, tei_type="Unhealthy"),
    TandemError: _Case(500, _SERVER, None, tei_type="Backend"),
    BaseException: _Case(500, _SERVER, "internal_error", tei_type="Backend"),
}

_encode = msgspec.json.Encoder().encode


def status_of(error: BaseException, api: Api) -> int:
    """The status code of an error in an API."""
    return _status(_case(error), api)


def render(error: BaseException, api: Api, request_id: str) -> Reply:
    """The reply to an error, in the API's own shape. Of an error outside the tree only the request's id is told."""
    case = _case(error)
    told = isinstance(error, TandemError)
    message = str(error) if told else f"something went wrong inside the server; its log has the cause as {request_id}"
    body = _DRAW[api](case, message, error, request_id)
    return Reply(body, status=_status(case, api), headers=_headers(error))


def _case(error: BaseException) -> _Case:
    return next(CASES[kind] for kind in type(error).__mro__ if kind in CASES)


def _status(case: _Case, api: Api) -> int:
    own = {Api.TEI: case.tei, Api.COHERE: case.cohere}.get(api, 0)
    return own or case.status


def _headers(error: BaseException) -> Headers:
    match error:
        case errors.Draining():
            # One second: by then a balancer has taken this process out, or its successor listens on the port.
            return [(b"retry-after", _seconds(error.retry_after_s or 1.0)), (b"connection", b"close")]
        case ServiceError() if error.retry_after_s is not None:
            return [(b"retry-after", _seconds(error.retry_after_s))]
        case errors.Unauthorized():
            return [(b"www-authenticate", b"Bearer")]
        case WrongMethod():
            return [(b"allow", ", ".join(error.allowed).encode())]
        case SlowClient():
            return [(b"connection", b"close")]
        case _:
            return []


def _seconds(value: float) -> bytes:
    """Whole seconds, rounded up and at least one: ``Retry-After`` has no fractions, and 0 asks for a storm."""
    return b"%d" % max(1, math.ceil(value))


def _openai(case: _Case, message: str, error: BaseException, _request_id: str) -> bytes:
    param = error.param if isinstance(error, RequestError) else None
    return _encode(OpenAIError(OpenAIErrorBody(message, case.kind, param, case.code)))


def _tei(case: _Case, message: str, _error: BaseException, _request_id: str) -> bytes:
    return _encode(TeiError(message, case.tei_type))


def _cohere(_case: _Case, message: str, _error: BaseException, request_id: str) -> bytes:
    return _encode(CohereError(request_id, message))


_DRAW: dict[Api, Callable[[_Case, str, BaseException, str], bytes]] = {
    Api.OPENAI: _openai,
    Api.TEI: _tei,
    Api.COHERE: _cohere,
}
