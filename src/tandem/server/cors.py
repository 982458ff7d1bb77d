"""Cross-origin requests: off unless origins are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tandem.server.base import Headers, Reply

_MAX_AGE_S = 600


class Cors:
    """Answers preflights and adds the headers that let a page on an allowed origin read a reply."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def __bool__(self) -> bool:
        return bool(self._origins)

    def headers(self, asked: Mapping[bytes, bytes]) -> Headers:
        """What to add to a reply. Credentials are never allowed: keys travel in headers, not in cookies."""
        origin = asked.get(b"origin")
        if origin is None or not self:
            return []
        if self._any:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if origin not in self._origins:
            return [(b"vary", b"origin")]
        return [(b"access-control-allow-origin", origin), (b"vary", b"origin"), _EXPOSED]

    def preflight(self, asked: Mapping[bytes, bytes], allowed: Sequence[str]) -> Reply | None:
        """The reply to a browser's question, which carries no key; None when this is not one.

        ``headers`` come on top, as on every reply.
        """
        if not self or b"origin" not in asked or b"access-control-request-method" not in asked:
            return None
        headers = [(b"access-control-allow-methods", ", ".join(allowed).encode())]
        wanted = asked.get(b"access-control-request-headers")
        if wanted is not None:
            headers.append((b"access-control-allow-headers", wanted))
        headers.append((b"access-control-max-age", b"%d" % _MAX_AGE_S))
        return Reply(b"", status=204, headers=headers)


_EXPOSED = (b"access-control-expose-headers", b"x-request-id, retry-after, x-compute-tokens, x-total-time")
