"""The Hugging Face hub as a source: its cache first, then the network. Which files, in which order, and whether whole.

What talks to the hub is handed in as four plain functions, ``HubCalls``; ``hub_client`` has the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from tandem.errors import DownloadFailed, ModelBroken, ModelUnsupported
from tandem.models.check import check_complete, check_pins, missing_files, module_list, sha256_file
from tandem.models.files import CONFIG, MODULES, graph_files, main_weights, plan_download
from tandem.models.folder import ModelFolder
from tandem.models.progress import Progress, readable
from tandem.models.sources import Found, NotHere, SourceOptions, Wanted

HUB = "hub"
CACHE = "hub's cache"


class HubFile(msgspec.Struct, frozen=True):
    """A file as the hub lists it; ``sha256`` only for big ones, ``size_bytes`` where it says."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None


class HubListing(msgspec.Struct, frozen=True):
    """A repository at one commit."""

    revision: str
    files: tuple[HubFile, ...]


Absent: TypeAlias = Literal["absent"]


class HubCalls(msgspec.Struct, frozen=True):
    """What Tandem asks of a hub.

    ``listing(hub_id, timeout_s)`` answers within the timeout, with what is there or why it can not say.
    ``download(hub_id, path, timeout_s, on_bytes)`` returns the file in the cache, None when the repository has no such
    file (and notes that in the cache); tells ``on_bytes`` how many bytes it has; raises DownloadFailed.
    ``cached(hub_id, path)`` never asks the network: the file, "absent" when the repository is known not to have it,
    None when nothing is known. ``cached_ids()`` are the ids of all models that the cache has any file of.
    """

    listing: Callable[[str, float], HubListing | NotHere]
    download: Callable[[str, str, float, Callable[[int], None]], Path | None]
    cached: Callable[[str, str], Path | Absent | None]
    cached_ids: Callable[[], list[str]]


def find_in_cache(wanted: Wanted, calls: HubCalls) -> Found:
    """The model in the hub's cache, if it is whole there; raises ModelBroken when a file of it is damaged.

    Any tool may have filled the cache, with a part of the files as well. Serving a part would mean wrong vectors
    without a word (no ``modules.json`` means mean pooling), so the cache counts only where ``modules.json`` is in it
    or is known not to exist. Nothing asks for a newer revision: ``tandem models pull`` does.
    """
    if wanted.hub_id is None:
        return NotHere(CACHE, "not asked: the name is no hub id")
    config, modules = (calls.cached(wanted.hub_id, name) for name in (CONFIG, MODULES))
    if not isinstance(config, Path):
        return NotHere(CACHE, "does not have it")
    folder = ModelFolder(config.parent, wanted.hub_id, HUB)
    if modules is None:
        return NotHere(CACHE, f"has a part of it only ({folder.path}: no {MODULES})")
    missing = missing_files(folder)
    if missing:
        return NotHere(CACHE, f"has a part of it only ({folder.path} lacks {', '.join(missing)})")
    try:
        check_complete(folder)
        check_pins(folder, wanted.pins)
    except ModelBroken as error:
        raise ModelBroken(f"{error}. `tandem models pull {wanted.hub_id}` gets it anew") from error
    return folder


def fetch(wanted: Wanted, options: SourceOptions, calls: HubCalls, progress: Progress) -> Found:
    """Bring the model into the hub's cache.

    Raises DownloadFailed when the transfer fails, ModelBroken when what came is not what was announced or pinned,
    ModelUnsupported when the repository has nothing that Tandem could serve; that is known before the weights move.
    """
    if wanted.hub_id is None:
        return NotHere(HUB, "not asked: the name is no hub id")
    progress.note(f"asking the Hugging Face hub for {wanted.hub_id}")
    listing = calls.listing(wanted.hub_id, options.hub_timeout_s)
    if isinstance(listing, NotHere):
        return listing
    transfer = _Transfer(wanted.hub_id, listing, options.hub_timeout_s, calls, progress)
    folder = _fetch_configs(transfer)
    files = {file.path: file for file in listing.files}
    paths = plan_download(
        files, [str(module["path"]) for module in module_list(folder)], graph=_needs_graph(folder, files)
    )
    _refuse_other_weights(wanted.pins, files)
    transfer.expect([files[path] for path in paths])
    for path in paths:
        _fetch_whole(transfer, files[path])
    check_complete(folder)
    check_pins(folder, wanted.pins)
    return folder


class _Transfer:
    """The files of one repository, one after another, all of one commit; progress is counted over all of them."""

    def __init__(self, hub_id: str, listing: HubListing, timeout_s: float, calls: HubCalls, progress: Progress) -> None:
        self.hub_id = hub_id
        self.revision = listing.revision
        self._timeout_s = timeout_s
        self._calls = calls
        self._progress = progress
        self._total_bytes: int | None = None
        self._done_bytes = 0
        self._root: Path | None = None
        self._got: dict[str, Path | None] = {}

    def expect(self, files: list[HubFile]) -> None:
        sizes = [file.size_bytes for file in files]
        self._total_bytes = None if None in sizes else sum(size or 0 for size in sizes)
        self._done_bytes = 0  # the configs that the plan was made from are among the files
        total = "" if self._total_bytes is None else f", {readable(self._total_bytes)}"
        self._progress.note(f"fetching {self.hub_id} at {self.revision[:12]}: {len(files)} files{total}")

    def get(self, path: str) -> Path | None:
        """The file in the cache, None when the repository does not have it; a file is asked for once."""
        if path not in self._got:
            self._got[path] = self._calls.download(self.hub_id, path, self._timeout_s, self._report)
        found = self._got[path]
        if found is None:
            return None
        root = found.parents[path.count("/")]
        if self._root not in (None, root):
            raise DownloadFailed(f"{self.hub_id} was changed on the hub while it was being fetched; try again")
        self._root = root
        self._done_bytes += found.stat().st_size
        self._report(0)
        return found

    def discard(self, path: str) -> None:
        """Out of the cache with a damaged file, or whoever comes next takes it for the real one."""
        found = self._got.pop(path)
        if found is not None:
            self._done_bytes -= found.stat().st_size
            found.resolve().unlink()
            found.unlink(missing_ok=True)

    def _report(self, file_bytes: int) -> None:
        if self._total_bytes is not None:
            self._progress.transfer(self.hub_id, self._done_bytes + file_bytes, self._total_bytes)


def _fetch_configs(transfer: _Transfer) -> ModelFolder:
    config = transfer.get(CONFIG)
    # Asked for even where it is not listed: the hub's library then notes in its cache that there is none.
    transfer.get(MODULES)
    if config is None:
        raise ModelUnsupported(f"{transfer.hub_id} has no {CONFIG} on the hub: not a model that Tandem can read")
    return ModelFolder(config.parent, transfer.hub_id, HUB)


def _needs_graph(folder: ModelFolder, files: Mapping[str, HubFile]) -> bool:
    """Whether to take the repository's own graph: its family is unknown, or it has no safetensors."""
    # Imported here: numpy comes with it, and a start from the store does not pass this way.
    from tandem.models.families import describe

    graph, weights = graph_files(files), main_weights(files)
    try:
        describe(folder.read_json(CONFIG) or {})
    except ModelUnsupported as error:
        if not graph:
            raise ModelUnsupported(
                f"{folder.name}: {error}; and it ships no ONNX or OpenVINO file of its own"
            ) from error
        return True
    if not weights and not graph:
        raise ModelUnsupported(
            f"{folder.name} has neither safetensors nor an ONNX or OpenVINO file on the hub; Tandem reads no pickle"
        )
    return not weights


def _refuse_other_weights(pins: Mapping[str, str], files: Mapping[str, HubFile]) -> None:
    """Before 90 MB move: what the hub announces must be what is pinned. It is hashed again when it is here."""
    for path, expected in pins.items():
        announced = files[path].sha256 if path in files else None
        if announced not in (None, expected):
            raise ModelBroken(f"{path} has SHA-256 {announced} on the hub, but it is pinned to {expected}")


def _fetch_whole(transfer: _Transfer, file: HubFile) -> None:
    """Get the file and compare it with what the hub announced; one that was damaged in the cache is fetched anew."""
    for attempt in (1, 2):
        path = transfer.get(file.path)
        if path is None:
            raise DownloadFailed(f"the hub listed {file.path} of {transfer.hub_id} and then did not have it; try again")
        differs = _difference(path, file)
        if differs is None:
            return
        transfer.discard(file.path)
        if attempt == 2:
            raise ModelBroken(f"{path}: came with {differs} announced by the hub; it was removed again")


def _difference(path: Path, file: HubFile) -> str | None:
    size_bytes = path.stat().st_size
    if file.size_bytes not in (None, size_bytes):
        return f"{size_bytes} bytes, not the {file.size_bytes}"
    if file.sha256 is None:
        return None
    found = sha256_file(path)
    return None if found == file.sha256 else f"SHA-256 {found}, not the {file.sha256}"
