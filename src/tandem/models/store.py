"""Tandem's own store: one folder a model, a manifest in each, and nothing in it that is not whole.

::

    <store_dir>/
        sentence-transformers--all-MiniLM-L6-v2/    files of the model, and tandem.json, the manifest
        .incoming/<model>.<random>/                 what is being fetched; on the same file system, so that one
                                                    rename makes it a model
        .locks/<model>                              held while a model is added or removed

A lock is the kernel's (flock), so it ends with its process, whatever ends that: what lies in ``.incoming`` while the
lock can be had was left by the dead, and goes when anything is added. Readers take no lock: a model appears whole, by
rename.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tandem.clock import Clock
from tandem.errors import DownloadFailed, ModelBroken, ModelError, ModelNotFound
from tandem.models.check import check_complete, check_pins, sha256_file
from tandem.models.files import decides_vectors, model_files
from tandem.models.folder import ModelFolder
from tandem.models.integrity import FileRecord, compare, differences
from tandem.models.progress import Progress, readable

MANIFEST = "tandem.json"

_WAITING = "another process is fetching {}; waiting for it"


class Manifest(msgspec.Struct, frozen=True):
    """``origin`` says what was fetched, ``added_s`` when: seconds since 1970-01-01 UTC."""

    name: str
    origin: str
    added_s: float
    fingerprint: str
    files: tuple[FileRecord, ...]


class Incoming:
    """A model on its way into the store. ``existing`` is set when another process has just brought it in."""

    def __init__(self, name: str, folder: Path, target: Path, existing: ModelFolder | None) -> None:
        self.files = folder / "files"
        self.scratch = folder / "scratch"
        self.files.mkdir()
        self.scratch.mkdir()
        self.existing = existing
        self._name = name
        self._target = target

    def commit(self, origin: str, pins: Mapping[str, str], clock: Clock) -> ModelFolder:
        """Check the files, write the manifest and make the folder a model of the store in one rename.

        Raises ModelBroken when a file is missing, damaged or differs from its pinned hash.
        """
        folder = ModelFolder(self.files, self._name, "store")
        check_complete(folder)
        check_pins(folder, pins)
        manifest = Manifest(self._name, origin, clock.wall(), folder.fingerprint(), _records(self.files))
        (self.files / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        for path in (*self.files.rglob("*"), self.files):
            _sync(path)  # or a power cut could leave the new name with empty files behind it
        self.files.rename(self._target)
        _sync(self._target.parent)
        return ModelFolder(self._target, self._name, "store")


class Store:
    """The models below one folder, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, hub_id: str) -> Path:
        """Where a model of this id lies or would lie. Ids have been through ``read_name``: none leads elsewhere."""
        return self.root / hub_id.replace("/", "--")

    def find(self, hub_id: str) -> ModelFolder | None:
        """The model, or None. Raises ModelBroken naming the files for one that has been damaged.

        Its files are compared with the manifest by hash (see ``integrity`` for what that costs), and the fingerprint
        tells of files that joined later.
        """
        manifest = self.manifest(hub_id)
        if manifest is None:
            return None
        folder = ModelFolder(self.path_of(hub_id), manifest.name, "store")
        damaged = differences(folder.path, manifest.files)
        if not damaged and folder.fingerprint() != manifest.fingerprint:
            # Nothing found here either: then it is the fingerprint's definition that has changed since.
            damaged = [*self.verify(hub_id), *_strangers(folder, manifest)]
        if damaged:
            raise ModelBroken(
                f"the model {manifest.name!r} in {folder.path} is damaged: {'; '.join(damaged)}. "
                f"`tandem models pull {manifest.name}` mends it"
            )
        return folder

    def manifest(self, hub_id: str) -> Manifest | None:
        """What the store knows of a model; None for one that it does not have. Raises ModelBroken."""
        path = self.path_of(hub_id) / MANIFEST
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelBroken(f"{path}: damaged: {error}. `tandem models pull {hub_id}` gets the model anew") from error

    def names(self) -> list[str]:
        """Ids of all models, unreadable ones too, sorted; empty when the store's folder is not there.

        Raises ModelBroken when that can not be read.
        """
        try:
            folders = [path.name for path in self.root.iterdir() if _may_hold(path)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ModelBroken(f"{self.root}: can not be read: {error.strerror or error}") from error
        return sorted(name.replace("--", "/") for name in folders if not name.startswith("."))

    def verify(self, hub_id: str) -> list[str]:
        """Hash every file; one sentence for each that is not as it was when it entered. Raises ModelBroken."""
        manifest = self.manifest(hub_id)
        folder = self.path_of(hub_id)
        return [] if manifest is None else [text for record in manifest.files for text in compare(folder, record)]

    def remove(self, hub_id: str) -> int:
        """Take the model out and return the bytes that are free again; raises ModelNotFound when it is not in here.

        A server that runs on it goes on: it has the files open. Raises ModelError when the folder can not be emptied.
        """
        target = self.path_of(hub_id)
        if not target.is_dir():
            raise ModelNotFound(f"the store {self.root} has no model {hub_id!r}")
        try:
            with _lock(self._lock_path(target.name), lambda: None):
                freed_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
                # In place and not by way of .incoming: a full disk, which is when people remove, has no room to rename.
                _discard(target)
        except OSError as error:
            raise ModelError(f"{target}: can not be removed: {error.strerror or error}") from error
        return freed_bytes

    @contextmanager
    def adding(self, hub_id: str, progress: Progress) -> Iterator[Incoming]:
        """Hold the model's place while it is fetched; a second process waits here and finds ``existing``.

        Nothing remains of what was not committed. Raises DownloadFailed when the disk is full or not writable.
        """
        target = self.path_of(hub_id)
        try:
            self._sweep()
            with _lock(self._lock_path(target.name), lambda: progress.note(_WAITING.format(hub_id))):
                existing = self.find(hub_id)
                if existing is None and target.exists():
                    _discard(target)  # a removal that was interrupted
                with _scratch(self.root / ".incoming", target.name) as folder:
                    yield Incoming(hub_id, folder, target, existing)
        except OSError as error:
            raise DownloadFailed(f"{hub_id!r} can not be kept: {self._explain(error)}") from error

    def _sweep(self) -> None:
        """Remove what killed processes left: all below ``.incoming`` that belongs to a model nobody holds now."""
        incoming = self.root / ".incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        for stale in incoming.iterdir():
            with suppress(BlockingIOError), _lock(self._lock_path(stale.name.rpartition(".")[0]), None):
                shutil.rmtree(stale, ignore_errors=True)

    def _lock_path(self, slug: str) -> Path:
        return self.root / ".locks" / slug

    def _explain(self, error: OSError) -> str:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            root = next(path for path in (self.root, *self.root.parents) if path.exists())
            free_bytes = shutil.disk_usage(root).free
            return (
                f"no space left for the store {self.root}: {readable(free_bytes)} are free and do not suffice; "
                "free some, or set TANDEM_HOME elsewhere"
            )
        return f"the store {self.root} can not be written: {error.strerror or error}; set TANDEM_HOME elsewhere"


@contextmanager
def _scratch(parent: Path, slug: str) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"{slug}.", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _discard(folder: Path) -> None:
    """Remove a model. Its manifest goes first: from then on it is none, however far the rest gets."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


@contextmanager
def _lock(path: Path, on_wait: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock; where another process does, call ``on_wait`` and wait, or without it raise BlockingIOError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                raise
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _may_hold(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:
        return True  # not allowed to look inside; whoever asks for the model is told why


def _records(folder: Path) -> tuple[FileRecord, ...]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(FileRecord(p.relative_to(folder).as_posix(), p.stat().st_size, sha256_file(p)) for p in paths)


def _strangers(folder: ModelFolder, manifest: Manifest) -> list[str]:
    known = {record.path for record in manifest.files}
    found = (path.relative_to(folder.path).as_posix() for path in model_files(folder.path))
    return [f"{name} was added afterwards" for name in sorted(found) if decides_vectors(name) and name not in known]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
