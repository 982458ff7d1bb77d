"""What the server needs to know, frozen. The defaults live in the settings table (``tandem.config``), once."""

from __future__ import annotations

import msgspec


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``served_model_names``: more names for the model; the first, if any, is the one replies carry.

    ``api_keys`` empty means that no key is asked for. ``admin_keys`` may also clear what all share; where there are API
    keys they are among them, as the door knows no others. ``metrics_open``: /metrics answers without a key.
    ``cors_origins`` empty means no CORS headers at all; ``*`` means any origin. ``request_timeout_s`` is the deadline
    of a request that names none. ``max_batch_tokens``, ``max_concurrent_requests`` and ``auto_truncate`` are held by
    the engine and only reported here. ``cache_tenants``: "key", and cached rows of one key never answer another, or
    "shared".
    """

    served_model_names: tuple[str, ...]
    api_keys: tuple[str, ...]
    admin_keys: tuple[str, ...]
    max_body_bytes: int
    max_batch_items: int
    max_concurrent_requests: int
    max_batch_tokens: int
    auto_truncate: bool
    cors_origins: tuple[str, ...]
    tls_cert_file: str | None
    tls_key_file: str | None
    readiness_interval_s: float
    drain_timeout_s: float
    request_timeout_s: float | None
    header_read_timeout_s: float
    body_read_timeout_s: float
    keep_alive_timeout_s: float
    docs: bool
    metrics_open: bool
    access_log: bool
    cache_tenants: str
