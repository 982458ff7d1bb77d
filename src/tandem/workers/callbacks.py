"""Calls to code of others from a thread that must go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVarTuple

log = logging.getLogger("tandem.workers")

Ts = TypeVarTuple("Ts")


def call(device_id: str, function: Callable[[*Ts], object], *args: *Ts) -> None:
    """Call ``function``; what it raises is logged. Others wait for answers from the same thread."""
    try:
        function(*args)
    # The worker's boundary, seen from within: what a callback throws is its owner's fault, and ends nobody else.
    except Exception:
        log.exception("%s: a callback failed", device_id)
