"""What only the client itself decides; tests/live/test_models_hub.py runs it against a hub."""

from __future__ import annotations

import threading

import pytest

from tandem.models.hub_client import _within


def test_an_answer_and_an_error_pass() -> None:
    assert _within(60, lambda: "answer") == "answer"

    def refuse() -> str:
        raise ConnectionRefusedError("refused")

    with pytest.raises(ConnectionRefusedError, match="refused"):
        _within(60, refuse)


def test_what_hangs_is_left_behind() -> None:
    """A name look-up that never returns, say: it has no timeout of its own."""
    hangs = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        _within(0.01, hangs.wait)
    hangs.set()
