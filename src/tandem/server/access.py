"""The access log: one line of JSON a request, off unless asked for."""

from __future__ import annotations

import logging

import msgspec

from tandem.clock import Clock
from tandem.server.base import Api
from tandem.server.request import Request

log = logging.getLogger("tandem.access")

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, omit_defaults=True):
    """No text, no key and no header of the client's is ever logged."""

    time_s: float
    id: str
    client: str
    method: str
    path: str
    api: Api
    status: int
    ms: float
    texts: int = 0
    tokens: int = 0


class AccessLog:
    """Writes to the logger ``tandem.access`` at level INFO."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def write(self, request: Request, api: Api, status: int, seconds: float) -> None:
        """One request, answered or abandoned (status 499)."""
        wall_s, ms = round(self._clock.wall(), 3), round(seconds * 1000, 3)
        line = _Line(wall_s, request.id, request.client, request.method, request.path, api, status, ms)
        line.texts, line.tokens = request.texts, request.tokens
        log.info("%s", _encode(line).decode())
