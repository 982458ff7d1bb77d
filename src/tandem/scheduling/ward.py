"""Watches over the devices: heeds what workers tell of themselves, puts to the test whose answers are suspect, and says
when nobody is to be waited for any more.

Texts may fail alone because they are bad, or because their device is. Which of the two, a batch that is known to be
good tells: only a device that fails that one too is at fault. It then rests while others serve, its worker is asked to
begin anew, and it is tried again after ever longer times.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from tandem.clock import Clock
from tandem.errors import NotReady
from tandem.scheduling.core import SchedulerCore
from tandem.scheduling.device import GIVE_UP_S
from tandem.scheduling.seat import Seat
from tandem.scheduling.warm import post, try_out
from tandem.workers.base import Done

log = logging.getLogger("tandem.scheduling")

_FIRST_TRIAL_S, _LAST_TRIAL_S = 1.0, 30.0
# When a client should come back that was refused for want of a device.
_RETRY_AFTER_S = 5.0


class Ward:
    """``loop`` is the event loop in which all of it happens; ``pump`` hands out what devices have room for."""

    def __init__(
        self, core: SchedulerCore, seats: Sequence[Seat], clock: Clock, pad_id: int, pump: Callable[[], None]
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._core = core
        self._seats = seats
        self._clock = clock
        self._pad_id = pad_id
        self._pump = pump
        self._trial_s: dict[str, float] = {}
        for seat in seats:
            seat.worker.watch(self._listener(seat))

    def heed(self) -> None:
        """Take in what workers have told, from the event loop's thread."""
        for seat in self._seats:
            news, seat.news = seat.news, None
            if news is None:
                continue
            up, why = news
            self._core.judge(seat.device, self._clock.now(), up=up)
            seat.turned(up, why)
            if not up and self.loop is not None:
                self.loop.call_later(1.01 * GIVE_UP_S, self._look)
            if up and not seat.device.well:
                self.test(seat)

    def heard(self, seat: Seat, texts: int, done: Done) -> None:
        """How a batch of so many texts ended that was not lost."""
        if seat.heard(texts, done):
            self.test(seat)
        elif done.rows is not None and not seat.device.well:
            self._recovered(seat)

    def test(self, seat: Seat) -> None:
        """Run a batch that is known to be good on a device whose answers are suspect."""
        if self.loop is not None and seat.device.up:
            loop = self.loop
            try_out(seat, self._pad_id, lambda done: post(loop, self._tested, seat, done))

    def unwell(self, seat: Seat, why: str) -> None:
        """A device gives wrong answers."""
        if seat.device.well:
            log.error("%s gives wrong answers: %s", seat.device.id, why)
        seat.said = why
        self._core.judge(seat.device, self._clock.now(), well=False)
        wait_s = self._trial_s.get(seat.device.id, _FIRST_TRIAL_S)
        self._trial_s[seat.device.id] = min(2 * wait_s, _LAST_TRIAL_S)
        if self.loop is not None:
            self.loop.call_later(wait_s, self.test, seat)

    def require_device(self) -> None:
        """Raises NotReady when no device is up, nor to be expected soon."""
        now = self._clock.now()
        if not any(seat.device.expected(now) for seat in self._seats):
            said = "; ".join(seat.said for seat in self._seats if seat.said)
            raise NotReady(f"no device has been up for {GIVE_UP_S:g} s: {said}", retry_after_s=_RETRY_AFTER_S)

    def _tested(self, seat: Seat, done: Done) -> None:
        if done.lost:
            return  # its worker tells how it goes on
        if done.refused:
            if seat.device.up and self.loop is not None:
                # No memory for the trial, say: nothing else would bring the device back.
                self.loop.call_later(_FIRST_TRIAL_S, self.test, seat)
            return
        if done.rows is None:
            self.unwell(seat, done.error or "the forward pass failed")
            seat.worker.restart(seat.said)
        else:
            seat.cleared()
            if not seat.device.well:
                self._recovered(seat)
        self._pump()

    def _recovered(self, seat: Seat) -> None:
        log.warning("%s gives right answers again", seat.device.id)
        self._trial_s.pop(seat.device.id, None)
        self._core.judge(seat.device, self._clock.now(), well=True)

    def _look(self) -> None:
        """A device may have been down for too long: tell those who wait for it."""
        try:
            self.require_device()
        except NotReady as error:
            self._core.fail_all(error)
        self._pump()

    def _listener(self, seat: Seat) -> Callable[[bool, str], None]:
        def heard(up: bool, why: str) -> None:
            seat.news = (up, why)
            if self.loop is not None:
                post(self.loop, self._pump)

        return heard
