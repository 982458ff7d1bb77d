"""``tandem serve [MODEL]``: the HTTP server in this process, until a signal stops it."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tandem import __version__
from tandem.config import SETTINGS, Setting, Settings, choices, load_settings

if TYPE_CHECKING:
    from tandem.engine import Engine
    from tandem.server.base import ServedModel
    from tandem.server.options import ServerOptions


_POOL_STATES = ("in_use", "high_water", "reserved")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting; the table in ``tandem.config`` says what each means."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a folder, a Hugging Face id or a short name")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in a TOML file")
    for row in SETTINGS:
        if row.name != "model" and row.flag:
            _add_flag(parser, row)


def run(args: argparse.Namespace) -> int:
    """Serve; 0 once a signal has stopped the server. Raises ConfigError, ModelError and ServiceError."""
    given = {row.name: getattr(args, row.name) for row in SETTINGS if row.flag}
    settings = load_settings(args.config, given)
    _log_to_stderr()
    _serve(settings)
    return 0


def server_options(settings: Settings, max_batch_tokens: int) -> ServerOptions:
    """The settings as the server takes them. Raises ConfigError when a file of keys can not be read."""
    from tandem.server.auth import read_keys
    from tandem.server.options import ServerOptions

    keys = settings.api_keys + (read_keys(Path(settings.api_key_file)) if settings.api_key_file else ())
    admins = read_keys(Path(settings.admin_key_file)) if settings.admin_key_file else ()
    return ServerOptions(
        served_model_names=settings.served_model_name,
        # Without keys the server is open, and a key for steering must not close it.
        api_keys=(*keys, *admins) if keys else (),
        admin_keys=admins,
        max_body_bytes=settings.max_body_bytes,
        max_batch_items=settings.max_batch_items,
        max_concurrent_requests=settings.max_concurrent_requests,
        max_batch_tokens=max_batch_tokens,
        auto_truncate=settings.auto_truncate,
        cors_origins=settings.cors_origins,
        tls_cert_file=settings.tls_cert_file or None,
        tls_key_file=settings.tls_key_file or None,
        readiness_interval_s=settings.readiness_interval_s,
        drain_timeout_s=settings.drain_timeout_s,
        request_timeout_s=settings.request_timeout_s or None,
        header_read_timeout_s=settings.header_read_timeout_s,
        body_read_timeout_s=settings.body_read_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
        docs=settings.docs,
        metrics_open=settings.metrics_open,
        access_log=settings.access_log,
        cache_tenants=settings.cache_tenants,
    )


def banner(url: str, model: ServedModel) -> str:
    """What is served where, in five lines."""
    what = f"{model.dims} dimensions, {model.max_tokens} tokens, {model.tier} on {model.device}"
    return "\n".join(
        (
            f"tandem {__version__} serves {model.id} ({what})",
            f"  OpenAI  {url}/v1/embeddings",
            f"  TEI     {url}/embed  /embed_all  /similarity  /tokenize  /decode  /info",
            f"  Cohere  {url}/v2/embed",
            f"  people  {url}/docs  probes: /livez /readyz  Prometheus: /metrics",
        )
    )


def _serve(settings: Settings) -> None:
    # Here and not at the top: these bring the inference engines, and `tandem serve --help` should not wait for them.
    from tandem.build import CPU_BATCH_TOKENS, build_engine
    from tandem.caches import build_semantic
    from tandem.clock import SystemClock
    from tandem.models.progress import StreamProgress
    from tandem.server import App, HttpServer, listen, run_server
    from tandem.telemetry import Metrics

    clock, metrics = SystemClock(), Metrics()
    options = server_options(settings, settings.max_batch_tokens or CPU_BATCH_TOKENS)
    with listen(settings.host, settings.port) as listener:
        engine = build_engine(settings, clock, metrics.batch, StreamProgress(sys.stderr, clock), processes=True)
        model = engine.model
        for name, state in engine.devices().items():
            metrics.watch_device(name, partial(_is_well, engine, name))
            if state.pool is not None:
                metrics.watch_pool(name, {held: partial(_held_bytes, engine, name, held) for held in _POOL_STATES})
        metrics.describe(__version__, model.id, model.tier, model.device)
        app = App(engine, options, metrics, clock, build_semantic(settings, clock, model.fingerprint))
        server = HttpServer(app, options, listener, clock)

        def started(url: str) -> None:
            # What is alive now stays alive. Kept out of the collector's sight, it costs no pause in a request later.
            gc.collect()
            gc.freeze()
            print(banner(url, model), flush=True)

        run_server(server, started)


def _is_well(engine: Engine, device_id: str) -> bool:
    return engine.devices()[device_id].well


def _held_bytes(engine: Engine, device_id: str, held: str) -> float:
    pool = engine.devices()[device_id].pool
    return 0.0 if pool is None else float(getattr(pool, f"{held}_bytes"))


def _add_flag(parser: argparse.ArgumentParser, row: Setting) -> None:
    # Types are checked with the settings of the file and the environment, by one function and in one wording.
    if row.kind is bool:
        parser.add_argument(row.flag, action=argparse.BooleanOptionalAction, help=row.help)
    elif row.kind is tuple:
        parser.add_argument(row.flag, action="append", metavar="VALUE", help=row.help)
    else:
        names = choices(row.name) or None
        metavar = None if names else row.kind.__name__.upper()
        parser.add_argument(row.flag, choices=names, metavar=metavar, help=row.help)


def _log_to_stderr() -> None:
    """One line an event. The access log, when it is on, is bare JSON beside it."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("tandem").setLevel(logging.INFO)
    access, bare = logging.getLogger("tandem.access"), logging.StreamHandler(sys.stderr)
    bare.setFormatter(logging.Formatter("%(message)s"))
    access.addHandler(bare)
    access.propagate = False
