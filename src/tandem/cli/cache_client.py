"""A running server, as ``tandem cache`` asks it: one request at a time, tried again where that may help."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tandem.errors import ConfigError, JobError

# Overloaded, draining or loading, and what a proxy in front says when nobody answers it.
_BUSY = frozenset({408, 429, 502, 503, 504})
_WORDS = 2000


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """``tries`` of one request; pauses double from ``first_s`` to ``most_s``, and are as long as the server asks for
    where that is longer, up to ``asked_s``. ``reply_s``: how long one reply is waited for."""

    tries: int = 8
    first_s: float = 0.5
    most_s: float = 30.0
    asked_s: float = 60.0
    reply_s: float = 300.0


ONCE = Patience(tries=1)


class ServerRefusedError(JobError):
    """The server will not do it. ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerBusyError(JobError):
    """It was too busy, or gone, each time."""


class _Later(msgspec.Struct, frozen=True):
    """Why it did not work, and after how many seconds the server wants to be asked again; 0 where it says nothing."""

    why: str
    asked_s: float


class Server:
    """``pause`` waits so many seconds, ``note`` hears why."""

    def __init__(
        self,
        url: str,
        key: str | None,
        patience: Patience = ONCE,
        pause: Callable[[float], None] = lambda seconds: None,
        note: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Raises ConfigError for what is no address."""
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no address of a server; one is like http://127.0.0.1:8080")
        self._url = url.rstrip("/")
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._patience = patience
        self._pause = pause
        self._note = note
        self._answered = False

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the reply. Raises ConfigError for a server that never answered, and JobError's kinds above."""
        content, _ = self._send(method, path, body)
        try:
            return json.loads(content)
        except ValueError:
            raise JobError(f"{self._url}{path} does not answer in JSON: is that a tandem server?") from None

    def embed(self, texts: list[str]) -> str:
        """Have them computed in the background class; where the dearest came from. Raises as ``ask``."""
        body = {"input": texts, "encoding_format": "base64", "priority": "background"}
        return self._send("POST", "/v1/embeddings", body)[1]

    def _send(self, method: str, path: str, body: object) -> tuple[bytes, str]:
        """The reply, and where its rows came from."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=self._headers, method=method)
        pause_s, found = self._patience.first_s, self._once(request)
        for _ in range(self._patience.tries - 1):
            if not isinstance(found, _Later):
                break
            wait_s = max(pause_s, min(found.asked_s, self._patience.asked_s))
            self._note(f"{request.full_url} {found.why}; again in {wait_s:g} s")
            self._pause(wait_s)
            pause_s = min(2 * pause_s, self._patience.most_s)
            found = self._once(request)
        if isinstance(found, _Later):
            raise ServerBusyError(f"{request.full_url} {found.why}")
        return found

    def _once(self, request: urllib.request.Request) -> tuple[bytes, str] | _Later:
        try:
            with urllib.request.urlopen(request, timeout=self._patience.reply_s) as reply:
                found = reply.read(), reply.headers.get("x-tandem-cache", "")
        except urllib.error.HTTPError as error:
            self._answered = True
            why = f"answered {error.code}: {_message(error)}"
            if error.code not in _BUSY:
                raise ServerRefusedError(f"{request.full_url} {why}", error.code) from None
            return _Later(why, _seconds(error.headers.get("retry-after", "")))
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"does not answer: {getattr(error, 'reason', None) or str(error) or type(error).__name__}"
            if not self._answered:
                raise ConfigError(f"{self._url} {why}; name it with --url") from None
            return _Later(why, 0.0)
        self._answered = True
        return found


def read_key(file: Path | None) -> str | None:
    """The first key of the file, else of ``$TANDEM_API_KEYS``. Raises ConfigError."""
    if file is not None:
        from tandem.server.auth import read_keys

        return read_keys(file)[0]
    keys = [key.strip() for key in os.environ.get("TANDEM_API_KEYS", "").split(",") if key.strip()]
    return keys[0] if keys else None


def _message(error: urllib.error.HTTPError) -> str:
    """The server's own sentence, without what is around it."""
    try:
        content = error.read(_WORDS).decode(errors="replace")
    except OSError:
        return error.reason
    try:
        found = json.loads(content)["error"]
        return str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, TypeError):
        return " ".join(content.split()) or error.reason


def _seconds(value: str) -> float:
    """Of a ``Retry-After``; 0 for none and for a date, which Tandem does not send."""
    return float(value) if value.isdecimal() else 0.0
