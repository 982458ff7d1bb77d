"""ASGI spoken by hand, for what an HTTP client library would not do: leave, dawdle, send nothing."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from tandem.server.app import App


class Exchange:
    """One request to an app. Feed it messages, then look at what it sent."""

    def __init__(self, app: App, path: str, *, method: str = "POST", headers: dict[str, str] | None = None) -> None:
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[MutableMapping[str, Any]] = []
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("192.0.2.1", 5000),
        }
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: App, scope: dict[str, Any]) -> None:
        await app(scope, self._inbox.get, self._send)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    def body(self, part: bytes, *, more: bool = False) -> None:
        self._inbox.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def leave(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        """Of the reply; 0 when nothing was sent."""
        return int(self.sent[0]["status"]) if self.sent else 0
