"""Is the service able to answer: a real forward pass has succeeded within the last interval."""

from __future__ import annotations

import asyncio
import logging

from tandem.clock import Clock
from tandem.errors import NotReady, TandemError
from tandem.server.base import Service

log = logging.getLogger(__name__)


class Readiness:
    """Knows when a forward pass last succeeded, and runs one when no request did."""

    def __init__(self, service: Service, clock: Clock, interval_s: float) -> None:
        self._service = service
        self._clock = clock
        self._interval_s = interval_s
        self._started = False
        self._draining = False
        self._succeeded_s = 0.0
        self._failure = ""

    def started(self) -> None:
        """The engine has started, which includes a forward pass of each warmed shape."""
        self._started = True
        self.succeeded()

    def draining(self) -> None:
        """From now on the answer is no: a balancer should send its requests elsewhere."""
        self._draining = True

    def succeeded(self) -> None:
        """A forward pass has just succeeded."""
        self._succeeded_s = self._clock.now()

    def require_started(self) -> None:
        """Raises NotReady until the engine has started."""
        if not self._started:
            raise NotReady("the model is still being loaded", retry_after_s=1.0)

    def state(self) -> tuple[bool, str]:
        """Ready or not, and why."""
        if self._draining:
            return False, "the process is shutting down"
        if not self._started:
            return False, "the model is still being loaded"
        ready, reason = self._service.readiness()
        if not ready:
            return False, reason
        age_s = self._clock.now() - self._succeeded_s
        if age_s > self._interval_s:
            return False, f"no forward pass has succeeded for {age_s:.1f} s{self._failure}"
        return True, f"a forward pass succeeded {age_s:.1f} s ago{f', but {reason}' if reason else ''}"

    async def check(self) -> None:
        """Run a forward pass, unless one succeeded in the last third of an interval."""
        if self._clock.now() - self._succeeded_s < self._interval_s / 3:
            return
        try:
            async with asyncio.timeout(self._interval_s):
                await self._service.probe()
        except TimeoutError:
            self._failed(f"a probe took longer than {self._interval_s:g} s")
        except TandemError as error:
            self._failed(str(error))
        else:
            self._failure = ""
            self.succeeded()

    async def watch(self) -> None:
        """Check for ever, three times an interval; cancel it to stop."""
        while True:
            await asyncio.sleep(self._interval_s / 3)
            await self.check()

    def _failed(self, why: str) -> None:
        if not self._failure:  # one line when it begins to fail, not one a check
            log.warning("the readiness probe failed: %s", why)
        self._failure = f"; the last probe failed: {why}"
