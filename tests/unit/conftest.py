"""An engine with its caches, for what is tested through it; who needs another kind has a fixture of his own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tandem.engine import Engine
from tests.cached_engines import cached_engine
from tests.engines import Device


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
async def engine(device: Device) -> AsyncIterator[Engine]:
    engine = cached_engine(device)
    yield engine
    device.door.set()
    await engine.close()
