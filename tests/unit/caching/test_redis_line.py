"""A line to a Redis: its answer is its caller's alone, and one that was left or lost is never used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tandem.caching.redis_reply import GarbledError, LoginRefusedError, RefusedError
from tandem.caching.redis_wire import Wire
from tests.event_loops import EVENT_LOOPS

PATIENCE_S = 30.0


@pytest.fixture(params=EVENT_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Peer:
    """Answers what it is told to, when it is told to, and counts who came."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.writers: list[asyncio.StreamWriter] = []
        self.heard: list[bytes] = []
        self.callers: list[asyncio.StreamWriter] = []
        self.came = asyncio.Event()
        self.gone = 0
        self.login = b"+OK\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while data := await reader.read(65536):
            self.heard.append(data)
            self.callers.append(writer)
            if data.startswith((b"*3\r\n$4\r\nAUTH", b"*2\r\n$4\r\nAUTH", b"*2\r\n$6\r\nSELECT")):
                writer.write(self.login)
            else:
                self.came.set()
        self.gone += 1
        self.came.set()
        writer.close()

    async def asked(self) -> None:
        """Wait until something is asked, or somebody has left."""
        async with asyncio.timeout(PATIENCE_S):
            await self.came.wait()
        self.came.clear()


@asynccontextmanager
async def wired(login: str = "") -> AsyncIterator[tuple[Peer, Wire]]:
    with TemporaryDirectory() as folder:
        peer = Peer(Path(folder, "redis.sock"))
        server = await asyncio.start_unix_server(peer.serve, Path(folder, "redis.sock"))
        wire = Wire(peer.url.replace("//", f"//{login}"))
        try:
            yield peer, wire
        finally:
            await wire.close()
            server.close()
            await server.wait_closed()


def row(value: bytes) -> bytes:
    return b"*1\r\n$%d\r\n%b\r\n" % (len(value), value)


async def test_a_line_is_used_again() -> None:
    async with wired() as (peer, wire):
        for value in (b"one", b"two"):
            answer = wire.read([b"key"], list)
            await peer.asked()
            peer.writers[0].write(row(value))
            assert await answer == [value]
        assert len(peer.writers) == 1


async def test_an_answer_that_comes_after_its_caller_left_is_nobody_elses() -> None:
    async with wired() as (peer, wire):
        for _ in range(2):
            answer = wire.read([b"key"], list)
            await peer.asked()
            peer.writers[0].write(row(b"first"))
            await answer
        left = wire.read([b"left"], list)
        await peer.asked()
        left.cancel()
        await asyncio.sleep(0)
        again = wire.read([b"again"], list)
        await peer.asked()
        peer.writers[0].write(row(b"for who has left"))
        while len(peer.writers) < 2:
            await peer.asked()
        peer.writers[1].write(row(b"mine"))
        assert await again == [b"mine"]
        assert peer.gone == 1, "the line went with him"


async def test_when_one_line_breaks_none_that_is_as_old_is_asked() -> None:
    async with wired() as (peer, wire):
        both = [wire.read([b"one"], list), wire.read([b"other"], list)]
        while len(peer.heard) < 2:
            await peer.asked()
        for writer in peer.writers:
            writer.write(row(b"value"))
        await asyncio.gather(*both)
        left = wire.read([b"left"], list)
        await peer.asked()
        left.cancel()
        while peer.gone < 2:
            await peer.asked()
        again = wire.read([b"again"], list)
        while len(peer.writers) < 3:
            await peer.asked()
        peer.writers[2].write(row(b"mine"))
        assert await again == [b"mine"]


async def test_two_who_ask_at_once_have_a_line_each() -> None:
    async with wired() as (peer, wire):
        one, other = wire.read([b"one"], list), wire.read([b"other"], list)
        while len(peer.heard) < 2:
            await peer.asked()
        for number in (1, 0):
            peer.callers[number].write(row(b"to " + peer.heard[number][-7:-2].strip()))
        assert [(await one)[0], (await other)[0]] == [b"to one", b"to other"]


async def test_what_comes_unasked_ends_the_line() -> None:
    async with wired() as (peer, wire):
        answer = wire.read([b"key"], list)
        await peer.asked()
        peer.writers[0].write(row(b"right") + row(b"and another"))
        with pytest.raises(GarbledError, match="an answer to nothing"):
            await answer
        await peer.asked()
        assert peer.gone == 1


@pytest.mark.parametrize("said", [row(b"a") * 2, b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"+OK\r\n", b"?\r\n"])
async def test_an_answer_to_something_else_is_garbled(said: bytes) -> None:
    async with wired() as (peer, wire):
        answer = wire.read([b"key"], list)
        await peer.asked()
        peer.writers[0].write(said)
        with pytest.raises(GarbledError):
            await answer


async def test_a_peer_that_hangs_up_fails_who_waits_and_is_called_again() -> None:
    async with wired() as (peer, wire):
        answer = wire.read([b"key"], list)
        await peer.asked()
        peer.writers[0].write(b"*1\r\n$5\r\nha")
        peer.writers[0].close()
        with pytest.raises(ConnectionResetError):
            await answer
        await peer.asked()
        again = wire.read([b"key"], list)
        await peer.asked()
        peer.writers[1].write(row(b"whole"))
        assert await again == [b"whole"]


async def test_a_refusal_leaves_the_line_as_it_is() -> None:
    async with wired() as (peer, wire):
        for _ in range(2):
            answer = wire.read([b"key"], list)
            await peer.asked()
            peer.writers[0].write(b"-LOADING it reads\r\n")
            with pytest.raises(RefusedError) as caught:
                await answer
            assert wire.words(caught.value) == "is still loading its data"
        assert len(peer.writers) == 1


async def test_it_logs_in_first() -> None:
    async with wired("ali:open%20sesame@") as (peer, wire):
        answer = wire.read([b"key"], list)
        await peer.asked()
        assert peer.heard[0] == b"*3\r\n$4\r\nAUTH\r\n$3\r\nali\r\n$11\r\nopen sesame\r\n"
        peer.writers[0].write(row(b"inside"))
        assert await answer == [b"inside"]


async def test_a_refused_login_is_said_to_be_one() -> None:
    async with wired(":close@") as (peer, wire):
        peer.login = b"-ERR nobody has a password here\r\n"
        with pytest.raises(LoginRefusedError) as caught:
            await wire.read([b"key"], list)
        assert wire.words(caught.value) == "refuses our login: ERR nobody has a password here"


async def test_no_such_address_is_an_error_of_the_network() -> None:
    wire = Wire("redis://a..b:6379")
    with pytest.raises(OSError, match="no such address"):
        await wire.read([b"key"], list)
    await wire.close()


async def test_closing_hangs_up_on_who_is_busy() -> None:
    async with wired() as (peer, wire):
        answer = wire.read([b"key"], list)
        await peer.asked()
        await wire.close()
        with pytest.raises(ConnectionResetError):
            await answer
