"""Settings in force: the table of ``settings.py``, filled from every place that may say something.

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
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from tandem.devices import plan_devices
from tandem.errors import ConfigError
from tandem.models.sources import SourceOptions, default_store_dir
from tandem.settings import Settings

__all__ = ["SETTINGS", "Setting", "Settings", "checked", "choices", "load_settings", "source_options"]

ENV_PREFIX = "TANDEM_"
# Read by other parts of Tandem or by its build; they share the prefix and are not settings.
_NOT_SETTINGS = frozenset({"TANDEM_HOME", "TANDEM_CONFIG", "TANDEM_DATA", "TANDEM_TEST_MODEL"})
_SECRETS = frozenset({"api_keys"})
# Kubernetes sets these in every pod beside a Service named "tandem" (service links), TANDEM_PORT=tcp://10.0.0.1:80 too.
_SERVICE_LINK = re.compile(r"TANDEM_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\w+)", re.ASCII)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.ASCII)
_NAMES = {
    "precision": ("auto", "fp32", "bf16"),
    "workers": ("auto", "process", "inline"),
    "cache": ("exact", "off"),
    "cache_tenants": ("key", "shared"),
    "near_duplicates": ("off", "static", "minhash"),
    "semantic_cache": ("off", "memory", "disk"),
}


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
    if name == "cache_rows":
        from tandem.quantization import ROW_CODECS

        return ROW_CODECS.names()
    return _NAMES.get(name, ())


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
