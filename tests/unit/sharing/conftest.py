"""Instances that share, over one board in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.semantic_fleet import Fleet


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.hall.fail(None)
    for instance in fleet.instances:
        await instance.close()
