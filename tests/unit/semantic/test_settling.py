"""Disks that are slow or fail, under a semantic cache: what is acknowledged, and what is not."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tandem.errors import ServiceError
from tandem.semantic import Journal, SemanticOptions
from tandem.semantic.service import SemanticService
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex
from tests.federated_board import until
from tests.unit.semantic.worlds import HERE, Calendar, at, item, linear


class Disk:
    """Its flushes can be held up, and fail."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.ready.set()
        self.fails = 0
        """So many of the next flushes."""
        self.flushes = 0
        self.threads: set[str] = set()

    def flush(self, descriptor: int) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.ready.wait(30)
        self.flushes += 1
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@asynccontextmanager
async def served(folder: Path, disk: Disk, every_s: float = 1000.0) -> AsyncIterator[SemanticService]:
    service = SemanticService(SemanticOptions(), linear, Calendar(), Journal(folder, flush=disk.flush), every_s)
    service.start()
    try:
        yield service
    finally:
        disk.ready.set()
        disk.fails = 0
        await service.close()


def files(folder: Path, form: str = "*.records") -> list[Path]:
    return sorted(folder.glob(form))


def payloads(service: SemanticService) -> list[bytes]:
    return [hit.payload for hit in service.cache.lookup(HERE, at(0), -1, k=100).hits]


async def test_a_slow_disk_holds_up_who_deletes_and_nobody_else(tmp_path: Path, disk: Disk) -> None:
    async with served(tmp_path, disk) as service:
        for index in range(3):
            service.cache.store(HERE, item(index, b"%d" % index, entry_id=str(index)))
        disk.ready.clear()
        disk.threads.clear()
        service.cache.delete(HERE, ["0"])
        settling = asyncio.create_task(service.settle())
        await until(lambda: bool(disk.threads))
        # The disk is at work, and requests go on.
        assert payloads(service) == [b"1", b"2"]
        service.cache.store(HERE, item(5, b"5"))
        assert len(payloads(service)) == 3
        assert not settling.done()
        disk.ready.set()
        await settling
        assert threading.current_thread().name not in disk.threads


async def test_those_who_wait_for_the_disk_together_share_its_turns(tmp_path: Path, disk: Disk) -> None:
    async with served(tmp_path, disk) as service:
        disk.ready.clear()
        before = disk.flushes
        settling = [asyncio.create_task(service.settle()) for _ in range(50)]
        await asyncio.sleep(0)
        disk.ready.set()
        await asyncio.gather(*settling)
        assert disk.flushes - before == 2, "the first one's, and one for all who came meanwhile"


async def test_a_deletion_that_the_disk_does_not_confirm_is_not_acknowledged(tmp_path: Path, disk: Disk) -> None:
    async with served(tmp_path, disk) as service:
        service.cache.store(HERE, item(0, b"0", entry_id="secret"))
        service.cache.store(HERE, item(9, b"9"))
        await service.settle()
        disk.fails = 1000
        service.cache.delete(HERE, ["secret"])
        for _ in range(2):
            # Asking again is no way to be told that all is well.
            with pytest.raises(ServiceError, match=r"the disk did not confirm it.*Input/output error"):
                await service.settle()
        assert "files that are no longer true may be left" in service.state()
        assert "Input/output error" in service.state()
        assert payloads(service) == [b"9"], "the service goes on"
        service.cache.store(HERE, item(5, b"5"))
        disk.fails = 0
        await service.settle()
        assert service.state() == "not persistent: the disk refused the journal: Input/output error"
        assert files(tmp_path) == []
    async with served(tmp_path, Disk()) as service:
        assert payloads(service) == []


async def test_an_error_that_was_told_to_another_is_not_forgotten(tmp_path: Path, disk: Disk) -> None:
    """The kernel tells of a failed write once: to the flush that comes each second, perhaps."""
    async with served(tmp_path, disk) as service:
        journal = service._journal
        assert journal is not None
        service.cache.store(HERE, item(0, b"0", entry_id="secret"))
        service.cache.delete(HERE, ["secret"])
        disk.fails = 1
        await asyncio.to_thread(journal.sync)
        assert service.state() == "the disk refused 1 writes: Input/output error"
        await service.settle()
        # It can not be known what is on the disk. So nothing is, and that is confirmed.
        assert files(tmp_path) == []
        assert service.state().startswith("not persistent")


async def test_what_was_in_doubt_is_copied_and_checked_and_goes_on(tmp_path: Path, disk: Disk) -> None:
    async with served(tmp_path, disk, every_s=0.001) as service:
        disk.fails = 1
        service.cache.store(HERE, item(0, b"0", entry_id="x"))
        service.cache.store(HERE, item(9, b"9"))
        await until(lambda: "refused 1 writes" in service.state())
        await until(lambda: len(files(tmp_path)) == 2)
        await until(lambda: not files(tmp_path, "*.copy"))
        journal = service._journal
        assert journal is not None
        await until(lambda: not journal._in_doubt)
        service.cache.delete(HERE, ["x"])
        await service.settle()
        service.cache.store(HERE, item(5, b"5"))
    async with served(tmp_path, Disk()) as service:
        assert payloads(service) == [b"5", b"9"]


async def test_a_deletion_and_a_copy_that_begins_at_once_are_both_on_the_disk(tmp_path: Path, disk: Disk) -> None:
    """The record of the deletion is in a file that is written no more, and must be flushed all the same."""
    flushed: list[str] = []

    def flush(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    journal = Journal(tmp_path, flush=flush)
    service = SemanticService(SemanticOptions(), linear, Calendar(), journal, 1000.0)
    service.cache.store(HERE, item(0, b"0", entry_id="x"))
    service.cache.delete(HERE, ["x"])
    work = journal.compaction(service.cache.serials())
    flushed.clear()
    await service.settle()
    assert [Path(name).name for name in flushed] == ["00000001.records", "00000002.records", tmp_path.name]
    work()
    await service.close()


class Forgetful(LinearIndex):
    """An index with a bug that comes and goes."""

    is_ill = False

    def memory_bytes(self) -> int:
        if self.is_ill:
            raise RuntimeError("the books are gone")
        return super().memory_bytes()


async def test_a_bug_in_the_upkeep_is_told_once_and_the_upkeep_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    indexes: list[Forgetful] = []

    def make(dims: int) -> Forgetful:
        indexes.append(Forgetful(IndexOptions(dims=dims)))
        return indexes[-1]

    clock = Calendar()
    service = SemanticService(SemanticOptions(), make, clock, Journal(tmp_path), every_s=0.001)
    service.start()
    service.cache.store(HERE, item(0, b"0", ttl_s=1.0))
    indexes[0].is_ill = True
    await until(lambda: service.failures > 2)
    assert "its upkeep fails" in service.state()
    assert "the books are gone" in service.state()
    assert len(caplog.records) == 1
    indexes[0].is_ill = False
    await until(lambda: service.state() == "ok")
    clock.advance(2.0)
    await until(lambda: service.cache.statistics().entries == 0)
    await service.close()


async def test_the_upkeep_is_no_more_after_the_end(tmp_path: Path, disk: Disk) -> None:
    async with served(tmp_path, disk) as service:
        watching = service._watching
        assert watching is not None
        await service.close()
        await service.close()
        assert watching.cancelled()
        assert service.failures == 0
