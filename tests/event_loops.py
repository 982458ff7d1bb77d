"""The event loops that Tandem runs on, as ``params`` of a fixture ``anyio_backend``."""

from __future__ import annotations

import pytest

EVENT_LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    # What serves.
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]
