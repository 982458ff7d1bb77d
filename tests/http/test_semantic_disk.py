"""The semantic cache over HTTP, on a disk that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import httpx

from tandem.clock import SystemClock
from tandem.semantic import Journal, SemanticOptions
from tandem.semantic.service import SemanticService
from tandem.server.app import App
from tandem.sharing.semantic import SharedSemantic
from tandem.telemetry import Metrics
from tandem.vectors.base import IndexOptions
from tandem.vectors.linear import LinearIndex
from tests.engines import Device, make_engine, model_info, words
from tests.http.conftest import OPTIONS

PATH = "/v1/semantic-cache"


async def test_a_deletion_that_a_disk_does_not_confirm_is_answered_503_and_the_service_goes_on(tmp_path: Path) -> None:
    is_ill = False

    def flush(descriptor: int) -> None:
        if is_ill:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)

    clock = SystemClock()
    journal = Journal(tmp_path, flush=flush)
    service = SemanticService(SemanticOptions(), lambda dims: LinearIndex(IndexOptions(dims=dims)), clock, journal)
    app = App(
        make_engine(Device(), model=model_info(normalize=True)),
        OPTIONS,
        Metrics(),
        clock,
        SharedSemantic(service, clock),
    )
    await app.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://tandem.test") as client:
        for number in (1, 2):
            kept = {"text": words(number), "payload": number, "id": str(number)}
            assert (await client.post(f"{PATH}/store", json=kept)).status_code == 200
        is_ill = True
        refused = await client.request("DELETE", f"{PATH}/default", json={"ids": ["1"]})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "the disk did not confirm it" in refused.json()["error"]["message"]
        state = (await client.get("/v1/cache/stats")).json()["semantic_state"]
        assert state.startswith("not persistent")
        asked = {"text": words(2), "threshold": 0.99}
        assert len((await client.post(f"{PATH}/lookup", json=asked)).json()["hits"]) == 1
        is_ill = False
        again = await client.request("DELETE", f"{PATH}/default", json={"ids": ["1"]})
        assert (again.status_code, again.json()) == (200, {"deleted": 0})
    await app.close()
