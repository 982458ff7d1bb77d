"""The URL of a Redis, as redis-py reads it. No message here repeats it, as a password may be in any part of it, but for
the files that TLS options name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tandem.caching.redis_line import Address
from tandem.errors import ConfigError

_KNOWN = frozenset({"host", "port", "db", "username", "password", "path", "connection_class"})
_FOLDER = "ssl_ca_path"
_FILES = ("ssl_ca_certs", _FOLDER, "ssl_certfile", "ssl_keyfile")


def address_of(url: str) -> Address:
    """Raises ConfigError for a URL that leads nowhere or names files that can not be used, or without redis-py."""
    try:
        from redis.asyncio.connection import SSLConnection
        from redis.exceptions import RedisError
    except ImportError as error:
        raise ConfigError(f"a Redis cache needs the package redis (pip install redis): {error}") from error
    named = _parsed(url)
    named.pop("connection_class", None)
    options = {name: named.pop(name) for name in [*named] if name.startswith("ssl_")}
    tls = None
    if url.startswith("rediss://"):
        files = _readable(options)
        try:
            # It connects to nothing. Files are read now: at run time, one that is missing would only be a Redis that
            # can not be reached.
            tls = SSLConnection(**options).ssl_context.get()
        except OSError as error:
            raise ConfigError(f"the Redis cache can not use the TLS options of its URL{files}: {error}") from error
        except (TypeError, ValueError, RedisError) as error:
            raise ConfigError("the URL of the Redis cache has a TLS option that makes no sense") from error
    elif options:
        raise ConfigError("the URL of the Redis cache has an option that does not go with its scheme")
    return Address(tls=tls, **named)


def _readable(options: Mapping[str, Any]) -> str:
    """The files that are named, to go on with. Raises ConfigError for one that can not be read: what ssl says of it
    would not name it."""
    files = [(name, options[name]) for name in _FILES if name in options]
    for name, path in files:
        try:
            if name == _FOLDER:
                os.listdir(path)
            else:
                os.close(os.open(path, os.O_RDONLY))
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"the Redis cache can not read {name}, {path!r}: {words}") from error
    return "".join(f", {path!r}" for _, path in files)


def _parsed(url: str) -> dict[str, Any]:
    from redis.asyncio.connection import parse_url

    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("the URL of the Redis cache must begin with redis://, rediss:// or unix://")
    try:
        parts = urlsplit(url)
        named: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise ConfigError(
            f"the URL of the Redis cache can not be read; it is like {scheme}://:password@host:6379/0, "
            "special characters of a password written as %XX"
        ) from error
    unknown = sorted(name for name in named if name not in _KNOWN and not name.startswith("ssl_"))
    if unknown:
        raise ConfigError(f"the URL of the Redis cache has options that are not known here: {', '.join(unknown)}")
    if scheme == "unix":
        if not named.get("path"):
            raise ConfigError("the URL of the Redis cache has no path: unix:///run/redis.sock")
    elif not parts.hostname:
        raise ConfigError(f"the URL of the Redis cache names no host: {scheme}://host:6379/0")
    elif parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise ConfigError(f"the URL of the Redis cache ends in the number of a database: {scheme}://host:6379/0")
    return named
