"""Whether the files of the store are still the ones that were put there, by SHA-256, at a price a start can pay.

A model of up to ``HASH_ALWAYS_BYTES`` is hashed at every load: 0.05 s for 90 MB. Of a larger one only those files are
hashed whose time stamps, inode or size are not those of the last time they were found whole; these are kept in a record
beside the manifest. A disk that decays under an unchanged inode shows only in ``tandem models show --verify`` there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tandem.errors import ModelBroken
from tandem.models.check import sha256_file

RECORD = ".verified.json"
HASH_ALWAYS_BYTES = 200_000_000


class FileRecord(msgspec.Struct, frozen=True):
    """One file as it was when it entered the store."""

    path: str
    size_bytes: int
    sha256: str


class Seen(msgspec.Struct, frozen=True):
    """What the file system said of a file whose content had ``sha256``."""

    sha256: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def differences(folder: Path, records: Sequence[FileRecord]) -> list[str]:
    """One sentence for each file that is not as it was when it entered. Raises ModelBroken for one not to be read."""
    if sum(record.size_bytes for record in records) <= HASH_ALWAYS_BYTES:
        return [text for record in records for text in compare(folder, record)]
    known = _read(folder)
    # Taken before the hashing: a file that is changed meanwhile is then hashed again next time.
    now = {record.path: _look(folder / record.path, record.sha256) for record in records}
    changed = [record for record in records if now[record.path] is None or now[record.path] != known.get(record.path)]
    found = [text for record in changed for text in compare(folder, record)]
    if changed and not found:
        _write(folder, {path: seen for path, seen in now.items() if seen is not None})
    return found


def compare(folder: Path, record: FileRecord) -> list[str]:
    """The file's difference from its record, in a sentence, or nothing. Reads all of it."""
    seen = _look(folder / record.path, record.sha256)
    if seen is None:
        return [f"{record.path} is missing"]
    if seen.size_bytes != record.size_bytes:
        return [f"{record.path} has {seen.size_bytes} bytes where {record.size_bytes} were stored"]
    found = sha256_file(folder / record.path)
    return [] if found == record.sha256 else [f"{record.path} has SHA-256 {found} where {record.sha256} was stored"]


def _look(path: Path, sha256: str) -> Seen | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error
    return Seen(sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _read(folder: Path) -> dict[str, Seen]:
    # Absent, unreadable or damaged: nothing is known then, and all is hashed.
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=dict[str, Seen])
    return {}


def _write(folder: Path, seen: dict[str, Seen]) -> None:
    # A store that can not be written (an image, another user's) is hashed at each load, which is slower and as right.
    with suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix=RECORD, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(seen))
            os.chmod(temporary, 0o644)
            Path(temporary).replace(folder / RECORD)
        finally:
            Path(temporary).unlink(missing_ok=True)
