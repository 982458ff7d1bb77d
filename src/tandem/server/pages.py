"""The specification as a document and as a page: ``/openapi.json`` and ``/docs``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import msgspec

from tandem.server.base import Api, Headers, Reply
from tandem.server.openapi import Facts, document
from tandem.server.request import Request
from tandem.server.routing import Handler, Route

# The page loads nothing from elsewhere, so that it works in a closed network, and the browser holds it to that.
_POLICY = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache"),
]
_FILES = (
    ("/docs", "docs.html", "text/html"),
    ("/docs/docs.css", "docs.css", "text/css"),
    ("/docs/docs.js", "docs.js", "text/javascript"),
)


def page_routes(described: Sequence[Route], facts: Facts) -> list[Route]:
    """The routes of the specification of ``described``. They answer without a key: they hold nothing to protect."""
    specification = msgspec.json.encode(document(described, facts))

    async def openapi(request: Request) -> Reply:
        return Reply(specification)

    return [
        Route("GET", "/openapi.json", Api.TEI, openapi, "This document", open=True, hidden=True),
        *(
            Route("GET", path, Api.TEI, _file(name, media), name, media=media, open=True, hidden=True)
            for path, name, media in _FILES
        ),
    ]


def _file(name: str, media: str) -> Handler:
    body = files("tandem.server").joinpath(name).read_bytes()
    content_type = f"{media}; charset=utf-8".encode()

    async def send(request: Request) -> Reply:
        return Reply(body, content_type=content_type, headers=_HEADERS)

    return send
