"""Who is let in: a permit, or an early answer that says when to come again."""

from __future__ import annotations

import msgspec

from tandem.errors import Overloaded
from tandem.scheduling.loop import SchedulerLoop
from tandem.types import EmbedRequest, Priority

# Of ``max_queue_s``, what a class may fill: when there is too much to do, background work is refused first, and what
# is critical overtakes the rest of the queue anyway.
QUEUE_SHARE = {Priority.CRITICAL: 2.0, Priority.NORMAL: 1.0, Priority.BACKGROUND: 0.5}


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``max_queue_s``: the longest predicted wait that a normal request is accepted with; ``max_queue_texts``: with
    more, the scheduler's own work on the queue would hold up the event loop. ``warm_shapes``: (n, s) of the batches
    that ``start`` runs, for each device."""

    max_concurrent_requests: int = 1024
    max_queue_s: float = 30.0
    max_queue_texts: int = 1 << 16
    auto_truncate: bool = True
    tokenizer_threads: int = 2
    warm_shapes: tuple[tuple[tuple[int, int], ...], ...] = ()


class Admission:
    """Looks at what is under way and what waits."""

    def __init__(self, loop: SchedulerLoop, options: EngineOptions) -> None:
        self._loop = loop
        self._options = options

    def admit(self, request: EmbedRequest, inflight: int) -> None:
        """Raises Overloaded, and NotReady when no device is up."""
        self._loop.ward.require_device()
        limit = self._options.max_concurrent_requests
        if inflight >= limit:
            reason = f"{inflight} requests are under way, the limit is {limit}"
            raise overloaded(reason, self._loop.core.backlog().predicted_s / 2)
        self.check_queue(request)

    def check_queue(self, request: EmbedRequest) -> None:
        """Raises Overloaded when more waits than the class may wait for."""
        limit_s = self._options.max_queue_s * QUEUE_SHARE[request.priority]
        backlog = self._loop.core.backlog()
        # An empty queue takes a request of any size: one that is too big on its own would never fit.
        if backlog.queued_texts > self._options.max_queue_texts:
            reason = f"{backlog.queued_texts} texts wait, the limit is {self._options.max_queue_texts}"
            raise overloaded(reason, backlog.predicted_s / 2)
        if backlog.predicted_s > limit_s and backlog.queued_texts:
            name = request.priority.name.lower()
            reason = (
                f"the queue is predicted to take {backlog.predicted_s:.1f} s, the limit for {name} is {limit_s:g} s"
            )
            raise overloaded(reason, backlog.predicted_s - limit_s)


def overloaded(reason: str, wait_s: float) -> Overloaded:
    """``wait_s``: after which it should be otherwise."""
    return Overloaded(f"overloaded: {reason}; try again later", retry_after_s=max(1.0, wait_s))
