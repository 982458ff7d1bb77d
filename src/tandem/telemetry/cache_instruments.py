"""Instruments of the caches: of rows, of near-duplicates, of the semantic cache and of how that is shared.

They are read at each scrape from counters that the caches keep themselves. No label is a namespace, a tenant or a text:
callers choose those, and could make as many time series as they like.
"""

from __future__ import annotations

from tandem.telemetry.base import Instrument, Kind

COUNTER, GAUGE = Kind.COUNTER, Kind.GAUGE

CACHE_TEXTS = Instrument(
    "tandem_cache_texts_total",
    COUNTER,
    "Texts answered, by where their rows came from: l1, l2, near-duplicate or miss (the model).",
    ("source",),
)
CACHE_TOKENS = Instrument(
    "tandem_cache_tokens_total", COUNTER, "The same in tokens, which is what the model is spared.", ("source",)
)
CACHE_LOOKUP = Instrument(
    "tandem_cache_lookup_p99_seconds", GAUGE, "99th percentile of the last 1,024 look-ups of a tier.", ("source",)
)
CACHE_JOINED = Instrument(
    "tandem_cache_joined_total", COUNTER, "Texts that were being computed for somebody else when they came."
)
CACHE_BYTES = Instrument("tandem_cache_bytes", GAUGE, "Bytes that a level holds.", ("level",))
CACHE_BUDGET = Instrument("tandem_cache_budget_bytes", GAUGE, "Bytes that a level may hold.", ("level",))
CACHE_ENTRIES = Instrument("tandem_cache_entries", GAUGE, "Rows that a level holds.", ("level",))
CACHE_EVICTIONS = Instrument("tandem_cache_evictions_total", COUNTER, "Rows that made room.", ("level",))
CACHE_WRITTEN = Instrument("tandem_cache_written_total", COUNTER, "Rows written to a level behind memory.", ("level",))
CACHE_BACKLOG = Instrument("tandem_cache_backlog_rows", GAUGE, "Rows that wait to be written to a level.", ("level",))
CACHE_FAULTS = Instrument(
    "tandem_cache_faults_total",
    COUNTER,
    "What a level did not give, each a miss, or keep: errors, late, skipped (breaker open), rejected (a wrong row), "
    "expired, refused (by the store), unfit (not finite), dropped (not written).",
    ("level", "kind"),
)
CACHE_UP = Instrument("tandem_cache_up", GAUGE, "1 while a level serves, else 0.", ("level",))
CACHE_BREAKER = Instrument(
    "tandem_cache_breaker_state",
    GAUGE,
    "1 for the state that the breaker of a level is in, else 0: closed, open, half_open (a probe is under way).",
    ("level", "state"),
)
CACHE_BREAKER_OPENED = Instrument(
    "tandem_cache_breaker_opened_total", COUNTER, "Times that a level was given up for a while.", ("level",)
)

NEAR_LOOKUPS = Instrument("tandem_near_lookups_total", COUNTER, "Texts that a near-duplicate was looked for.")
NEAR_FOUND = Instrument("tandem_near_found_total", COUNTER, "Look-ups that had a candidate which no guard refused.")
NEAR_SERVED = Instrument("tandem_near_served_total", COUNTER, "Texts answered with a near-duplicate's row.")
NEAR_REFUSED = Instrument(
    "tandem_near_refused_total", COUNTER, "Candidates refused for what their words say, by reason.", ("reason",)
)
NEAR_LABELLED = Instrument(
    "tandem_near_labelled_total", COUNTER, "Look-ups whose candidate was compared with the model's own row."
)
NEAR_TENANTS = Instrument(
    "tandem_near_tenants",
    GAUGE,
    "Tenants that asked for near-duplicates: served, as a threshold is proven for them, or learning.",
    ("state",),
)
NEAR_THRESHOLD = Instrument(
    "tandem_near_threshold_cosine",
    GAUGE,
    "Least similarity of two signatures that is served, where it is lowest; absent while none is proven.",
)
NEAR_AUDITED = Instrument(
    "tandem_near_audited", GAUGE, "Answers over the threshold that were checked since the alarm last rang."
)
NEAR_AUDITED_WRONG = Instrument(
    "tandem_near_audited_wrong", GAUGE, "Of these, those under the cosine that is promised."
)
NEAR_ERROR = Instrument("tandem_near_error_ratio", GAUGE, "Wrong among the audited; absent while none was audited.")
NEAR_ERROR_BOUND = Instrument(
    "tandem_near_error_bound_ratio",
    GAUGE,
    "Exact upper bound on the true share of wrong answers, at the confidence of the promise (Clopper-Pearson).",
)
NEAR_ALARMS = Instrument(
    "tandem_near_alarms_total", COUNTER, "Times that audits showed the promise to be broken; nothing is served after."
)
NEAR_ANCHORS = Instrument("tandem_near_anchors", GAUGE, "Texts that may answer others.")
NEAR_BYTES = Instrument("tandem_near_bytes", GAUGE, "Bytes that they take, their rows apart.")

SEMANTIC_UP = Instrument("tandem_semantic_up", GAUGE, "1 while the semantic cache keeps what it is given, else 0.")
SEMANTIC_LOOKUPS = Instrument("tandem_semantic_lookups_total", COUNTER, "Look-ups in the semantic cache.")
SEMANTIC_HITS = Instrument(
    "tandem_semantic_hits_total", COUNTER, "Look-ups that had a hit in the instance's own cache."
)
SEMANTIC_STORED = Instrument("tandem_semantic_stored_total", COUNTER, "Payloads stored.")
SEMANTIC_EVICTIONS = Instrument("tandem_semantic_evictions_total", COUNTER, "Payloads that made room.")
SEMANTIC_EXPIRED = Instrument("tandem_semantic_expired_total", COUNTER, "Payloads whose time was over.")
SEMANTIC_NAMESPACES = Instrument("tandem_semantic_namespaces", GAUGE, "Namespaces that hold payloads.")
SEMANTIC_ENTRIES = Instrument("tandem_semantic_entries", GAUGE, "Payloads held.")
SEMANTIC_BYTES = Instrument("tandem_semantic_bytes", GAUGE, "Bytes that count against semantic_cache_bytes.")
SEMANTIC_INDEX_BYTES = Instrument("tandem_semantic_index_bytes", GAUGE, "Memory that the indexes take.")
SEMANTIC_AUDITS = Instrument(
    "tandem_semantic_audits_total", COUNTER, "Audits of promises that were answered: right or wrong.", ("answer",)
)
SEMANTIC_ALARMS = Instrument(
    "tandem_semantic_alarms_total", COUNTER, "Times that audits showed a promise to be broken."
)

FEDERATION_UP = Instrument("tandem_federation_up", GAUGE, "1 while sharing with other instances works, else 0.")
FEDERATION_NAMESPACES = Instrument("tandem_federation_namespaces", GAUGE, "Namespaces that are shared now.")
FEDERATION_PEERS = Instrument(
    "tandem_federation_peers", GAUGE, "Other instances that announced something within the last ten minutes."
)
FEDERATION_LAG = Instrument(
    "tandem_federation_lag_seconds",
    GAUGE,
    "Since when there may be news of others that was not read; a second as a rule.",
)
FEDERATION_ENTRIES = Instrument("tandem_federation_entries", GAUGE, "Entries known of all instances.")
FEDERATION_UNSENT = Instrument("tandem_federation_unsent", GAUGE, "Entries and announcements that wait to be shared.")
FEDERATION_LOOKUPS = Instrument(
    "tandem_federation_lookups_total",
    COUNTER,
    "Look-ups among what other instances stored, after one's own cache had none: hit or miss.",
    ("result",),
)
FEDERATION_ANNOUNCEMENTS = Instrument(
    "tandem_federation_announcements_total", COUNTER, "Announcements sent and received.", ("direction",)
)
FEDERATION_FAULTS = Instrument(
    "tandem_federation_faults_total",
    COUNTER,
    "errors (of calls), unsent (no room to wait), unread (fell off the stream), damaged or refused (announcements), "
    "stale (the value was gone), mismatched (another value), left_out and too_long (not shared), parted (namespaces).",
    ("kind",),
)

CACHE_INSTRUMENTS = (
    CACHE_TEXTS,
    CACHE_TOKENS,
    CACHE_LOOKUP,
    CACHE_JOINED,
    CACHE_BYTES,
    CACHE_BUDGET,
    CACHE_ENTRIES,
    CACHE_EVICTIONS,
    CACHE_WRITTEN,
    CACHE_BACKLOG,
    CACHE_FAULTS,
    CACHE_UP,
    CACHE_BREAKER,
    CACHE_BREAKER_OPENED,
    NEAR_LOOKUPS,
    NEAR_FOUND,
    NEAR_SERVED,
    NEAR_REFUSED,
    NEAR_LABELLED,
    NEAR_TENANTS,
    NEAR_THRESHOLD,
    NEAR_AUDITED,
    NEAR_AUDITED_WRONG,
    NEAR_ERROR,
    NEAR_ERROR_BOUND,
    NEAR_ALARMS,
    NEAR_ANCHORS,
    NEAR_BYTES,
    SEMANTIC_UP,
    SEMANTIC_LOOKUPS,
    SEMANTIC_HITS,
    SEMANTIC_STORED,
    SEMANTIC_EVICTIONS,
    SEMANTIC_EXPIRED,
    SEMANTIC_NAMESPACES,
    SEMANTIC_ENTRIES,
    SEMANTIC_BYTES,
    SEMANTIC_INDEX_BYTES,
    SEMANTIC_AUDITS,
    SEMANTIC_ALARMS,
    FEDERATION_UP,
    FEDERATION_NAMESPACES,
    FEDERATION_PEERS,
    FEDERATION_LAG,
    FEDERATION_ENTRIES,
    FEDERATION_UNSENT,
    FEDERATION_LOOKUPS,
    FEDERATION_ANNOUNCEMENTS,
    FEDERATION_FAULTS,
)
