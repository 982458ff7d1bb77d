"""Files of records: how one is read, and how a torn end is told from damage.

A file begins with a line that names the form; then come records, each a length, a check sum of the length, a check sum
of the body (CRC-32, little-endian), and the body. A process that dies, or a machine that loses power, leaves a file
that ends too early or in zeros: what came before is good, and nobody was told that the rest was safe. Anything else
that does not check is damage. After damage no one can say which deletions were lost with it, so no part of the file is
believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from tandem.errors import ConfigError
from tandem.semantic.records import Record, decode

log = logging.getLogger("tandem.semantic")

PLAIN = b"tandem-semantic 1 more \n"
WHOLE = b"tandem-semantic 1 whole\n"
"""Begins a file that stands for itself and all files before it."""

_HEAD = struct.Struct("<III")


class Damaged(Exception):
    """A file of records is not what was written. The message names it and the place."""


def frame(body: bytes) -> bytes:
    """A record as it stands in a file."""
    length = struct.pack("<I", len(body))
    return length + struct.pack("<II", zlib.crc32(length), zlib.crc32(body)) + body


def lock_folder(folder: Path) -> int:
    """A descriptor that holds the folder until it is closed, or the process ends. Raises ConfigError, OSError."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"the semantic cache in {folder} is in use by another process; give each its own") from None
    return descriptor


def file_of(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.records"


def new_file(path: Path) -> int:
    """A descriptor that appends to an empty file of records. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, PLAIN)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def sync_folder(folder: Path, flush: Callable[[int], None]) -> None:
    """Bring to the disk which files are there. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def files_of(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("*.records"), key=lambda path: int(path.stem))


def bytes_of(folder: Path) -> int:
    """Of all its files of records."""
    found = 0
    for path in files_of(folder):
        with contextlib.suppress(OSError):  # A compaction removed it.
            found += path.stat().st_size
    return found


def remove_files(folder: Path) -> None:
    """Remove all files of records, and a copy of them that is being made in another thread. Raises OSError.

    A copy is begun before the files are opened that it is made of. So one that is begun after these are gone finds
    nothing, one that is there by then is removed and can not take its place, and one that took it just before is among
    the files again.
    """
    for form in ("*.records", "*.copy", "*.records"):
        for path in folder.glob(form):
            path.unlink(missing_ok=True)


def sound_files(folder: Path) -> list[Path]:
    """The files to read, oldest first, all of them checked. Leftovers of a crash are removed; after damage all are set
    aside, and there are none. Raises OSError."""
    for leftover in folder.glob("*.copy"):
        leftover.unlink()
    files = files_of(folder)
    for place in reversed(range(len(files))):
        if _is_whole(files[place]):
            for older in files[:place]:
                older.unlink()
            files = files[place:]
            break
    try:
        for path in files:
            for _ in records(path):
                continue
    except Damaged as error:
        for path in files:
            path.replace(path.with_suffix(".damaged"))
        log.error("%s; all files there are set aside as *.damaged, and the cache starts empty", error)
        return []
    return files


def records(path: Path) -> Iterator[Record]:
    """All good records of a file. Raises Damaged where it meets one that is not, OSError."""
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        place = len(PLAIN)
        mark = file.read(place)
        if mark not in (PLAIN, WHOLE):
            if any(form.startswith(mark.rstrip(b"\0")) for form in (PLAIN, WHOLE)) and _is_zeros(file):
                return
            raise Damaged(f"{path} is no file of a semantic cache, or one of another version")
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, of_length, of_body = _HEAD.unpack(head)
            is_head_good = zlib.crc32(head[:4]) == of_length
            if is_head_good and place + _HEAD.size + length > total:
                return
            body = file.read(length) if is_head_good else b""
            if not is_head_good or zlib.crc32(body) != of_body:
                # Written in part: zeros from somewhere in the record to the end of the file.
                written = place + len((head + body).rstrip(b"\0"))
                file.seek(written)
                if written < total and _is_zeros(file):
                    return
                raise Damaged(f"{path} is damaged at byte {place:,}")
            try:
                yield decode(body)
            except msgspec.DecodeError as error:
                raise Damaged(f"{path} has another form at byte {place:,}: {error}") from error
            place += _HEAD.size + length


def _is_zeros(file: BinaryIO) -> bool:
    """Whether nothing but zeros follows."""
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            return False
    return True


def _is_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(WHOLE)) == WHOLE
