"""Memory of the host: this process's own, and such as a child process can map too."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from pathlib import Path

import numpy as np

from tandem.errors import MemoryExhausted
from tandem.memory.base import Region, StoreOptions

CACHE_LINE = 64


class HostRegion:
    """A mapping of this process. It is unmapped when nobody views it any more."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self.buffer = memoryview(mapping)
        self.nbytes = self.buffer.nbytes
        self.address = int(np.frombuffer(self.buffer, np.uint8).ctypes.data)


class SharedRegion(HostRegion):
    """A mapping of a file that has no name: it lives as long as a process has it open or mapped."""

    def __init__(self, mapping: mmap.mmap, fd: int) -> None:
        super().__init__(mapping)
        self._fd = fd
        self.close = weakref.finalize(self, os.close, fd)

    def fileno(self) -> int:
        """To hand to a child process, which calls ``attach`` with it. Belongs to the region."""
        return self._fd


class HostStore:
    """Anonymous memory of this process."""

    name = "host"
    alignment = CACHE_LINE
    on_host = True

    def __init__(self, options: StoreOptions) -> None:
        self._flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _populate(options)

    def allocate(self, nbytes: int) -> HostRegion:
        _require_available(self.name, nbytes, self._flags)
        try:
            return HostRegion(mmap.mmap(-1, nbytes, flags=self._flags))
        except (OSError, OverflowError) as error:
            raise refused(self.name, nbytes, error) from error

    def free(self, region: Region) -> None:
        """Nothing to do: the mapping goes with the last that views it."""


class SharedStore:
    """Memory that processes share, from ``memfd_create``: it has no name in the file system, so nothing is left behind
    however a process ends. Rejected: ``multiprocessing.shared_memory``, whose files stay in /dev/shm after a kill and
    whose tracker deletes them under processes that still use them."""

    name = "shared"
    alignment = CACHE_LINE
    on_host = True

    def __init__(self, options: StoreOptions) -> None:
        self._flags = mmap.MAP_SHARED | _populate(options)

    def allocate(self, nbytes: int) -> SharedRegion:
        _require_available(self.name, nbytes, self._flags)
        fd = -1
        try:
            fd = os.memfd_create("tandem-pool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            if self._flags & mmap.MAP_POPULATE:
                # Or a page that the system can not give would end us with SIGBUS on its first touch.
                os.posix_fallocate(fd, 0, nbytes)
            else:
                os.ftruncate(fd, nbytes)
            # So would a page past the end of a file that the other process has cut.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return SharedRegion(mmap.mmap(fd, nbytes, flags=self._flags), fd)
        except (OSError, OverflowError) as error:
            if fd >= 0:
                os.close(fd)
            raise refused(self.name, nbytes, error) from error

    def free(self, region: Region) -> None:
        """Close the file; the memory is the system's again when the other process has let go as well."""
        if isinstance(region, SharedRegion):
            region.close()


def attach(fd: int, nbytes: int) -> SharedRegion:
    """The same memory in another process: ``fd`` and ``nbytes`` as its ``SharedRegion`` has them there.

    The region owns ``fd`` from here on. Raises MemoryExhausted when it can not be mapped.
    """
    try:
        return SharedRegion(mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED), fd)
    except (OSError, ValueError) as error:
        raise refused(SharedStore.name, nbytes, error) from error


def available_bytes() -> int | None:
    """What the machine can give before it swaps or ends processes, as Linux estimates it; None where it does not say.
    A control group may allow less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def refused(store: str, nbytes: int, reason: object) -> MemoryExhausted:
    """The system said no."""
    return MemoryExhausted(f"the system gives no {nbytes:,} bytes of {store} memory: {reason}")


def _require_available(store: str, nbytes: int, flags: int) -> None:
    """Pages taken at once are not refused by the system, it ends a process to have them; so they are counted first."""
    available = available_bytes()
    if flags & mmap.MAP_POPULATE and available is not None and nbytes > available:
        raise refused(store, nbytes, f"it has {available:,} to spare")


def _populate(options: StoreOptions) -> int:
    return mmap.MAP_POPULATE if options.populate else 0
