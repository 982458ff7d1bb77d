"""What is on disk while a job runs, and why a crash at any instant loses and doubles nothing.

Beside the output stands a folder ``<output>.tandem-job`` with

- ``vectors``: float32 rows, record k of the input at byte ``k * 4 * d``; NaN for a record that got no vector;
- ``journal``: lines of JSON. First the plan (which input, which model), then one line a batch: records done so far.
  A last line ``written`` says that ``output`` is complete;
- ``output``: the result while it is being written;
- ``lock``: held with flock, so it frees itself when the process dies.

The argument. Rows are at a place given by their record's number, so writing them twice changes nothing. A journal line
is appended only after the rows it speaks of are on the disk (fsync), and lines end at the first one that is not
whole. So after a crash the journal names a prefix of the input whose rows are all there; the job goes on behind it,
over whatever else the crash left. The output is then made in one go from the input and the rows alone, by the same
code whether there were ten crashes or none, and appears by rename. Nothing else is remembered, so nothing can disagree.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec
import numpy as np

from tandem.bulk.base import START, Position
from tandem.bulk.disk import disk_errors, lock_folder, sync_folder
from tandem.errors import JobError
from tandem.types import Rows

VERSION = 1
"""Of what stands in the folder. Another one is not gone on with."""

_EDGE_BYTES = 1 << 16


class Identity(msgspec.Struct, frozen=True):
    """Enough to notice that a file is not the one it was: SHA-256 of its first and last 64 KB, size, time of change."""

    size_bytes: int
    mtime_ns: int
    head: str
    tail: str

    @classmethod
    def of(cls, path: Path) -> Identity:
        """Raises JobError when ``path`` can not be read."""
        with disk_errors(path), open(path, "rb") as file:
            status = os.fstat(file.fileno())
            head = hashlib.sha256(file.read(_EDGE_BYTES)).hexdigest()
            file.seek(max(status.st_size - _EDGE_BYTES, 0))
            tail = hashlib.sha256(file.read(_EDGE_BYTES)).hexdigest()
        return cls(status.st_size, status.st_mtime_ns, head, tail)

    def differences(self, other: Identity) -> list[str]:
        """What a person can check, most telling first."""
        if self.size_bytes != other.size_bytes:
            return [f"the input's size was {self.size_bytes:,} bytes and is {other.size_bytes:,}"]
        if (self.head, self.tail) != (other.head, other.tail):
            return ["the input's content has changed"]
        return ["the input's time of change differs"] if self.mtime_ns != other.mtime_ns else []


class Terms(msgspec.Struct, frozen=True):
    """All that decides a job's rows: the input, and ``settings`` (model, prompt, column) by the names people use."""

    input: Identity
    settings: dict[str, str]
    version: int = VERSION

    def differences(self, other: Terms) -> list[str]:
        """What is not the same in ``other``, in words; empty when a job may go on under it."""
        found = self.input.differences(other.input)
        for name in sorted({*self.settings, *other.settings}):
            before, now = self.settings.get(name, "not given"), other.settings.get(name, "not given")
            if before != now:
                found.append(f"{name} was {before} and is {now}")
        if self.version != other.version:
            found.append(f"the form of a job on disk was {self.version} and is {other.version}")
        return found


class Survey(msgspec.Struct, frozen=True):
    """What one reading of the whole input found, before any text was embedded."""

    records: int
    faulty: int
    column: str
    types: dict[str, Any] | None
    record_bytes: int


class Plan(msgspec.Struct, frozen=True):
    """The first line of a journal."""

    terms: Terms
    survey: Survey


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    plan: Plan | None = None
    done: Position | None = None
    written: bool = False


class Workspace:
    """The folder of one job, locked while entered. ``plan`` is None when there is nothing to go on with."""

    def __init__(self, output: Path, dimensions: int) -> None:
        self._output = output
        self._row_bytes = 4 * dimensions
        self.folder = output.with_name(output.name + ".tandem-job")
        self.plan: Plan | None = None
        self.done = START
        self.written = False
        self.is_foreign = False
        self._lock = -1
        self._journal = -1
        self._vectors = -1

    def __enter__(self) -> Workspace:
        """Raises JobError when another job holds the folder or it can not be made."""
        self._lock = lock_folder(self.folder, self._output)
        with disk_errors(self.folder):
            self._journal = os.open(self.folder / "journal", os.O_RDWR | os.O_CREAT, 0o666)
            self._load()
            self._vectors = os.open(self.folder / "vectors", os.O_RDWR | os.O_CREAT, 0o666)
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for descriptor in (self._journal, self._vectors):
            if descriptor >= 0:
                os.close(descriptor)
        if self.plan is None and not self.is_foreign:
            # In this order: a crash on the way leaves a journal that still explains the rest, and nobody else comes in
            # before the lock goes.
            for name in ("vectors", "output", "journal", "lock"):
                (self.folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # Something of the user's is in it; it stays.
                self.folder.rmdir()
        os.close(self._lock)

    def begin(self, plan: Plan) -> None:
        """Forget whatever was here and start on ``plan``."""
        self.forget()
        self._append(_Entry(plan=plan))
        self.plan = plan

    def forget(self) -> None:
        self.plan, self.done, self.written, self.is_foreign = None, START, False, False
        with disk_errors(self.folder):
            os.ftruncate(self._journal, 0)
            os.lseek(self._journal, 0, os.SEEK_SET)
            os.ftruncate(self._vectors, 0)
            os.fsync(self._journal)

    def commit(self, first: int, rows: Rows, end: Position) -> None:
        """Make ``rows``, records ``first`` to ``end.records``, survive anything. Raises JobError on a full disk."""
        with disk_errors(self.folder):
            data = np.ascontiguousarray(rows, dtype="<f4").data.cast("B")
            offset = first * self._row_bytes
            while data:
                count = os.pwrite(self._vectors, data, offset)
                offset += count
                data = data[count:]
            os.fsync(self._vectors)
        self._append(_Entry(done=end))
        self.done = end

    def rows(self, first: int, n: int) -> Rows:
        """float32 [n, d] of the records from ``first`` on. Raises JobError when the file is shorter than that."""
        wanted, data = n * self._row_bytes, b""
        with disk_errors(self.folder):
            while len(data) < wanted:
                part = os.pread(self._vectors, wanted - len(data), first * self._row_bytes + len(data))
                if not part:
                    raise JobError(f"{self.folder}/vectors is damaged; start anew with --restart")
                data += part
        return np.frombuffer(data, "<f4").reshape(n, self._row_bytes // 4)

    @contextmanager
    def result(self) -> Iterator[BinaryIO]:
        """A file to write the result to. When the block ends well it is on disk, and marked so if there is a plan."""
        path = self.folder / "output"
        try:
            with disk_errors(path), open(path, "wb", buffering=1 << 20) as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            path.unlink(missing_ok=True)  # Half a result is of no use and may be what fills the disk.
            raise
        if self.plan is not None:
            self._append(_Entry(written=True))
        self.written = True

    def publish(self) -> None:
        """Put the written result in its place, whole or not at all, and end the job."""
        with disk_errors(self._output):
            os.replace(self.folder / "output", self._output)
            sync_folder(self._output.parent)
        self.plan = None

    @property
    def has_result(self) -> bool:
        """A complete result waits to be published."""
        return self.written and (self.folder / "output").exists()

    @property
    def is_over(self) -> bool:
        """The result was published and a crash kept the job from tidying up."""
        return self.written and not self.has_result and self._output.exists()

    def _append(self, entry: _Entry) -> None:
        with disk_errors(self.folder):
            line = msgspec.json.encode(entry) + b"\n"
            if os.write(self._journal, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._journal)

    def _load(self) -> None:
        """Take the journal's whole lines as the truth and cut off the rest."""
        valid = 0
        with open(self.folder / "journal", "rb") as file:
            for line in file:
                try:
                    entry = msgspec.json.decode(line, type=_Entry)
                except msgspec.DecodeError:
                    # A line that a crash tore has no end. One that has is somebody's, and not to be thrown away.
                    self.is_foreign = valid == 0 and line.startswith(b"{") and line.endswith(b"\n")
                    break
                if not line.endswith(b"\n"):
                    break
                valid += len(line)
                self.plan = entry.plan or self.plan
                self.done = entry.done or self.done
                self.written = self.written or entry.written
        if not self.is_foreign:
            os.ftruncate(self._journal, valid)
            os.lseek(self._journal, valid, os.SEEK_SET)
