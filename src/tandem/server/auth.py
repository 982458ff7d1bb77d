"""API keys: who may ask."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from tandem.errors import ConfigError, Unauthorized

_BEARER = b"bearer "
_TENANT_DIGITS = 32


class ApiKeys:
    """Accepts any of several keys. Only their hashes are kept, so a dump of memory or a traceback shows none."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Mapping[bytes, bytes]) -> str:
        """Whose request it is: a name from which the key can not be told. Raises Unauthorized unless a header carries a
        known key: ``Authorization: Bearer`` or ``X-API-Key``."""
        given = _given(headers)
        if not given:
            raise Unauthorized("an API key is required: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        digest = sha256(given).digest()
        if not self._has(digest):
            raise Unauthorized("the API key is not known here")
        return digest.hex()[:_TENANT_DIGITS]

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a header carries one of the keys, at a door that was passed."""
        return self._has(sha256(_given(headers)).digest())

    def _has(self, digest: bytes) -> bool:
        # Every key is compared, and each in constant time: the time taken says nothing about which came close.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def _given(headers: Mapping[bytes, bytes]) -> bytes:
    return _bearer(headers.get(b"authorization", b"")) or headers.get(b"x-api-key", b"")


def _bearer(value: bytes) -> bytes:
    return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b""


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; empty lines and those that start with # are left out.

    Raises ConfigError for a file that can not be read or holds no key: an empty file must not open the server.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file of API keys {path} can not be read: {error}") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise ConfigError(f"the file of API keys {path} holds no key")
    return keys
