"""From settings to caches: beside ``build.py`` and ``fleet.py``, the place where their names become objects."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from tandem.caching.aliases import ALIAS_BYTES, Aliases
from tandem.caching.base import EntryStore
from tandem.caching.exact import ExactCache
from tandem.caching.keys import KeyMaker, KeySpace
from tandem.caching.l1 import L1Cache, L1Options, least_bytes
from tandem.caching.near_duplicate import NearOptions
from tandem.caching.record import Records
from tandem.caching.signatures import MinHashSigner, Signer, StaticSigner
from tandem.clock import Clock
from tandem.config import Settings, choices, source_options
from tandem.errors import ConfigError
from tandem.intake import Intake, ModelInfo
from tandem.models.loaded import LoadedModel
from tandem.near import NearDuplicates, in_a_thread
from tandem.quantization import ROW_CODECS
from tandem.recall import Recall
from tandem.scheduling.loop import SchedulerLoop
from tandem.semantic.base import SemanticOptions
from tandem.semantic.journal import Journal
from tandem.semantic.service import SemanticService
from tandem.sharing import RedisMeeting, SharedSemantic, SharingOptions
from tandem.vectors import IndexOptions, best_index
from tandem.verification import Promise

# Of the memory for rows, what their second names may take: a name takes a sixth of a row of 384 floats.
_ALIAS_SHARE = 0.1


def build_recall(
    settings: Settings, model: ModelInfo, intake: Intake, loop: SchedulerLoop, clock: Clock
) -> Recall | None:
    """The caches of an engine, None where there are to be none. Raises ConfigError."""
    if settings.cache == "off":
        return None
    space = KeySpace(model=f"{model.fingerprint}/{model.pooling}", tier=model.tier.value)
    aliases = int(settings.cache_bytes * _ALIAS_SHARE)
    options = L1Options(
        budget_bytes=settings.cache_bytes - aliases,
        codec=settings.cache_rows,
        ttl_s=settings.cache_ttl_s,
        tenant_share=settings.cache_tenant_share,
    )
    # A cache of no bytes still needs a slot to be one.
    least = least_bytes(options, model.dims)
    options = msgspec.structs.replace(options, budget_bytes=max(least, options.budget_bytes))
    l1 = L1Cache(options, model.dims, clock)
    store = build_store(settings, space, model.dims, clock)
    cache = ExactCache(l1, Aliases(aliases // ALIAS_BYTES), store, clock)
    return Recall(cache, KeyMaker(space), intake, loop, model.tier)


def build_near(settings: Settings, model: LoadedModel, dims: int, cache: ExactCache) -> NearDuplicates | None:
    """The tier of near-duplicates, None where it is off. Raises ConfigError."""
    if settings.near_duplicates == "off":
        return None
    signer: Signer = MinHashSigner()
    if settings.near_duplicates not in choices("near_duplicates"):
        raise ConfigError(f"near_duplicates: {settings.near_duplicates!r} is none of off, static, minhash")
    if settings.near_duplicates == "static":
        if "embeddings.token.weight" not in model.weights:
            raise ConfigError("near_duplicates: this model's token vectors are not to be had; minhash needs none")
        signer = StaticSigner(model.weights["embeddings.token.weight"], dims, run=in_a_thread)
    promise = Promise(max_error=settings.near_max_error, confidence=settings.near_confidence)
    return NearDuplicates(NearOptions(cosine=settings.near_cosine, promise=promise), signer, cache)


def build_store(settings: Settings, space: KeySpace, dims: int, clock: Clock) -> EntryStore | None:
    """The second level that the settings name. Raises ConfigError."""
    if settings.cache_l2 == "off":
        return None
    records = Records(space.namespace(), dims, ROW_CODECS.get(settings.cache_rows)())
    ttl_s = settings.cache_l2_ttl_s or None
    if settings.cache_l2 == "disk":
        from tandem.caching.disk import DiskOptions, disk_store

        options = DiskOptions(path=cache_dir(settings) / "rows", max_bytes=settings.cache_disk_bytes, ttl_s=ttl_s)
        return disk_store(options, records, clock)
    if "://" not in settings.cache_l2:
        raise ConfigError(
            f"cache_l2: {settings.cache_l2!r} is not off, disk, nor the URL of a Redis as redis://host:6379"
        )
    from tandem.caching.redis import RedisOptions, redis_store

    return redis_store(RedisOptions(url=settings.cache_l2, ttl_s=ttl_s), records, clock)


def build_semantic(settings: Settings, clock: Clock, served_model: str = "") -> SharedSemantic | None:
    """The semantic cache, None where there is to be none. ``served_model`` is the fingerprint of what is served, empty
    where that is not known. Reads what is on disk. Raises ConfigError."""
    url, secret_file = settings.semantic_cache_redis, settings.semantic_cache_secret_file
    if url and settings.semantic_cache == "off":
        raise ConfigError("semantic_cache_redis: there is no semantic cache to share; semantic_cache is off")
    if secret_file and not url:
        raise ConfigError("semantic_cache_secret_file: nothing is shared without semantic_cache_redis")
    if settings.semantic_cache == "off":
        return None
    secret = read_secret(Path(secret_file)) if secret_file else b""
    try:
        meeting = RedisMeeting(url, clock) if url else None
    except ConfigError as error:
        raise ConfigError(f"semantic_cache_redis: {error}") from error
    journal = Journal(cache_dir(settings) / "semantic") if settings.semantic_cache == "disk" else None
    options = SemanticOptions(served_model=served_model, budget_bytes=settings.semantic_cache_bytes)
    service = SemanticService(options, lambda dims: best_index(IndexOptions(dims=dims)), clock, journal)
    return SharedSemantic(service, clock, meeting, SharingOptions(secret=secret))


def read_secret(path: Path) -> bytes:
    """A file's content as a secret of 64 bytes. Raises ConfigError for a file that can not be read or is empty."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"semantic_cache_secret_file: {path} can not be read: {error.strerror}") from error
    if not content:
        # It would let everybody in who can write to that Redis, and whoever names a file wants the contrary.
        raise ConfigError(f"semantic_cache_secret_file: {path} is empty")
    return hashlib.blake2b(content).digest()


def cache_dir(settings: Settings) -> Path:
    """Where caches on disk lie. Raises ConfigError when there is no place."""
    if settings.cache_dir:
        return Path(settings.cache_dir).expanduser().absolute()
    return source_options(settings).store_dir.parent / "cache"
