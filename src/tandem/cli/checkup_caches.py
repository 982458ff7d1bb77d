"""What ``tandem doctor`` finds out about the caches: would they work with these settings, and what to do if not.

A cache that does not work costs speed and fails no request, so little here keeps a machine from serving: only what
``tandem serve`` itself refuses.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from tandem.caches import cache_dir, read_secret
from tandem.caching.record import Records
from tandem.caching.redis import RedisOptions, redis_store
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.errors import ConfigError
from tandem.models.loaded import LoadedModel
from tandem.models.progress import readable
from tandem.quantization import ROW_CODECS

# A Redis that takes longer is of no use as a cache either: a read is given 45 ms.
_WAIT_S = 2.0
_OLDEST_REDIS = 5
_PROBE = b"td:doctor"
_MEMORY_SHARE = 0.5
_OPTIONS_SHOWN = 400


class CacheFinding(msgspec.Struct, frozen=True):
    """``name`` of a part; ``words`` on how it stands; ``advice`` on what to do, empty where that is nothing."""

    name: str
    words: str
    advice: str = ""


def cache_findings(
    settings: Settings, model: LoadedModel | None, memory_bytes: int | None, problems: list[str]
) -> list[CacheFinding]:
    """All parts in turn; what would keep ``tandem serve`` from starting goes to ``problems``. ``memory_bytes``: what
    this process may have, None where that is not known. Asks the Redis that the settings name, and writes a key there
    that lives for a second."""
    found: list[CacheFinding] = []
    for part in (_memory(settings, memory_bytes), _second(settings), _near(settings, model), _semantic(settings)):
        try:
            found += part
        except ConfigError as error:
            problems.append(str(error))
    return found


def without_password(value: str) -> str:
    """A setting as it may be shown: of a URL's user and password, nothing."""
    if "://" not in value:
        return value
    scheme, _, rest = value.partition("://")
    # Up to the last @, whatever is in it: who forgot to escape a character of his password must not see it here.
    _, at, place = rest.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{place.partition('?')[0]}"


def _memory(settings: Settings, memory_bytes: int | None) -> Iterator[CacheFinding]:
    rows = 0 if settings.cache == "off" else settings.cache_bytes
    semantic = 0 if settings.semantic_cache == "off" else settings.semantic_cache_bytes
    words = (
        "off (cache: off)" if settings.cache == "off" else f"up to {readable(rows)} of rows as {settings.cache_rows}"
    )
    advice = ""
    if memory_bytes is not None and rows + semantic > _MEMORY_SHARE * memory_bytes:
        advice = (
            f"rows and semantic cache may take {readable(rows + semantic)} of {readable(memory_bytes)}, and the model "
            "needs some: lower cache_bytes or semantic_cache_bytes, or keep rows as int8"
        )
    yield CacheFinding("rows", words, advice)


def _second(settings: Settings) -> Iterator[CacheFinding]:
    if settings.cache == "off" or settings.cache_l2 == "off":
        yield CacheFinding("level 2", "off; cache_l2 = disk outlives restarts, a Redis is shared by servers")
    elif settings.cache_l2 == "disk":
        if _installed("lmdb") is None:
            raise ConfigError("cache_l2: disk needs the package lmdb (pip install lmdb)")
        yield _folder("level 2", cache_dir(settings) / "rows", settings.cache_disk_bytes, "cache_disk_bytes")
    elif "://" not in settings.cache_l2:
        raise ConfigError(
            f"cache_l2: {settings.cache_l2!r} is not off, disk, nor the URL of a Redis as redis://host:6379"
        )
    else:
        # For what it refuses; it connects to nothing yet.
        records = Records(bytes(8), 384, ROW_CODECS.get(settings.cache_rows)())
        redis_store(RedisOptions(url=settings.cache_l2, ttl_s=settings.cache_l2_ttl_s or None), records, SystemClock())
        yield _redis("level 2", settings.cache_l2)


def _near(settings: Settings, model: LoadedModel | None) -> Iterator[CacheFinding]:
    if settings.cache == "off" or settings.near_duplicates == "off":
        yield CacheFinding("near", "off; it serves other texts' rows, within a promise (docs/caching.md)")
        return
    if settings.near_duplicates == "static" and model is not None and "embeddings.token.weight" not in model.weights:
        raise ConfigError("near_duplicates: this model's token vectors are not to be had; minhash needs none")
    promise = (
        f"{settings.near_duplicates}, at most {settings.near_max_error:.1%} under a cosine of {settings.near_cosine:g}"
    )
    advice = "for requests that say cache: near; `tandem cache curve FILE` shows what it would serve of your own texts"
    yield CacheFinding("near", promise, advice)


def _semantic(settings: Settings) -> Iterator[CacheFinding]:
    url = settings.semantic_cache_redis
    if settings.semantic_cache == "off":
        if url:
            raise ConfigError("semantic_cache_redis: there is no semantic cache to share; semantic_cache is off")
        yield CacheFinding("semantic", "off (semantic_cache: off)")
        return
    size = readable(settings.semantic_cache_bytes)
    if settings.semantic_cache == "disk":
        yield _folder(
            "semantic", cache_dir(settings) / "semantic", settings.semantic_cache_bytes, "semantic_cache_bytes"
        )
    else:
        yield CacheFinding("semantic", f"up to {size} in memory; semantic_cache = disk outlives restarts")
    usearch = _installed("usearch")
    if usearch is None:
        words = "usearch is not installed, so large sets of vectors are searched one by one"
        yield CacheFinding(
            "index", words, "pip install usearch; without it, 100,000 vectors take milliseconds a look-up"
        )
    else:
        yield CacheFinding("index", f"usearch {usearch}")
    if settings.semantic_cache_secret_file:
        if not url:
            raise ConfigError("semantic_cache_secret_file: nothing is shared without semantic_cache_redis")
        read_secret(Path(settings.semantic_cache_secret_file))
    if url:
        yield _redis("shared", url)


def _folder(name: str, folder: Path, size_bytes: int, setting: str) -> CacheFinding:
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        used, free, is_folder = _bytes_below(folder), shutil.disk_usage(there).free, there.is_dir()
    except OSError as error:
        words = f"disk, {folder}: it can not be looked at: {error.strerror}"
        return CacheFinding(name, words, "let this user into it, or name another with cache_dir")
    words = f"disk, {folder}: {readable(used)} of up to {readable(size_bytes)}, {readable(free)} free"
    advice = ""
    if not is_folder:
        advice = f"{there} is no folder: nothing can be kept; name another with cache_dir"
    elif not os.access(there, os.W_OK | os.X_OK):
        advice = f"{there} is not writable: nothing will be kept; change its owner, or name another with cache_dir"
    elif free < size_bytes - used:
        advice = (
            f"the disk will be full before the cache is: lower {setting}, or name a folder elsewhere with cache_dir"
        )
    return CacheFinding(name, words, advice)


def _bytes_below(folder: Path) -> int:
    """Of the files that are there and may be looked at: a server that runs removes some meanwhile."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(os.path.join(place, name)).st_size
    return found


def _redis(name: str, url: str) -> CacheFinding:
    """Raises ConfigError without redis-py, or for a URL that is none."""
    shown = without_password(url)
    try:
        from redis import Redis, exceptions
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError(f"{name}: a Redis needs the package redis (pip install redis): {error}") from error
    try:
        client: Any = Redis.from_url(
            url, socket_timeout=_WAIT_S, socket_connect_timeout=_WAIT_S, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise ConfigError(f"{name}: {shown} is no URL of a Redis, as redis://host:6379") from error
    try:
        with client:
            client.ping()
            facts = _facts(client, exceptions.RedisError)
            client.set(_PROBE, b"", px=1000)
    except exceptions.AuthenticationError as error:
        return CacheFinding(name, f"{shown} refuses our login: {error}", "put user and password into the URL")
    except exceptions.NoPermissionError as error:
        return CacheFinding(name, f"{shown} answers and refuses to be written to: {error}", "give that user the rights")
    except exceptions.ReadOnlyError:
        return CacheFinding(name, f"{shown} is a replica, which can not be written to", "name the primary")
    except exceptions.OutOfMemoryError:
        return CacheFinding(name, f"{shown} is full, and refuses to be written to", _POLICY)
    except (exceptions.RedisError, OSError) as error:
        words = f"{shown} does not answer: {' '.join(str(error).split())[:_OPTIONS_SHOWN]}"
        return CacheFinding(name, words, "start it, or mend the URL; until it answers, all are misses")
    return _judged(name, shown, facts)


_POLICY = "set maxmemory-policy to allkeys-lru, or raise maxmemory"


def _facts(client: Any, refused: type[Exception]) -> dict[str, Any]:
    """What it tells of itself; empty where a user may not ask for that."""
    try:
        return dict(client.info())
    except refused:
        return {}


def _judged(name: str, shown: str, facts: dict[str, Any]) -> CacheFinding:
    if not facts:
        return CacheFinding(name, f"{shown} answers, and may be written to; it tells nothing of itself (INFO)")
    number, limit = str(facts.get("redis_version", "?")), int(facts.get("maxmemory", 0))
    policy = str(facts.get("maxmemory_policy", "?"))
    holds = f"holds {readable(int(facts.get('used_memory', 0)))}"
    words = f"{shown} answers: Redis {number}, {holds} of {readable(limit) if limit else 'no limit'}, {policy}"
    advice = ""
    if number.split(".")[0].isdecimal() and int(number.split(".")[0]) < _OLDEST_REDIS:
        advice = f"it is older than {_OLDEST_REDIS}.0, and is not tested; take a newer one"
    elif facts.get("cluster_enabled"):
        advice = "it is a cluster, which refuses reads of several keys; name a single server"
    elif limit and policy == "noeviction":
        advice = f"once it is full it refuses rows: {_POLICY}"
    elif not limit:
        advice = "it has no limit, and grows until its machine has no memory: set maxmemory, and allkeys-lru as policy"
    return CacheFinding(name, words, advice)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
