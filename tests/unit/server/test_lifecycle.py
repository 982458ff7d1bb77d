from __future__ import annotations

from threading import Thread

import httpx
import msgspec
import pytest

from tests.engines import Device, make_engine
from tests.http.conftest import OPTIONS
from tests.http.loopback import Loopback


def test_a_device_that_hangs_is_not_waited_for_twice(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    failures: list[httpx.HTTPError] = []

    def ask() -> None:
        try:
            httpx.post(f"{server.url}/v1/embeddings", json={"input": "w7 w9"}, timeout=60)
        except httpx.HTTPError as error:
            failures.append(error)

    server = Loopback(make_engine(device), msgspec.structs.replace(OPTIONS, drain_timeout_s=0.1))
    server.thread.start()
    assert server.started.wait(60)
    device.door.clear()
    before = len(device.batches)
    asking = Thread(target=ask)
    asking.start()
    while len(device.batches) == before:
        assert device.arrived.acquire(timeout=60)
    server.server.stop()
    server.thread.join(60)
    assert not server.thread.is_alive()
    assert device.closed == 0, "what computes is left alone, and ends with the process"
    device.door.set()
    asking.join(60)
    assert len(failures) == 1
    assert "requests unanswered" in caplog.text
    assert "its model is not freed" in caplog.text
