"""The parent's hand on one child process: start it, talk to it, see how it ended, and be sure that it did."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import msgspec

from tandem.backends.child_process import command, environment, how_it_ended
from tandem.errors import BackendFailed
from tandem.memory.stores import SharedRegion
from tandem.workers.messages import FromChild, Line, Setup, ToChild, pair

log = logging.getLogger("tandem.workers")

# A process that a driver holds in the kernel does not end even by SIGKILL.
_REAP_S = 5.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """How a child comes to be. ``build`` pickled, ``cpus`` the cores it is bound to, ``threads`` its libraries' (0:
    their own choice)."""

    device_id: str
    build: bytes
    cpus: tuple[int, ...] | None
    threads: int


class Child:
    """One child process. It ends when the thread ends that made it (``PR_SET_PDEATHSIG`` counts threads). ``send`` and
    ``kill`` may come from any thread until ``end`` is called, the rest from that one."""

    def __init__(self, birth: Birth, region: SharedRegion) -> None:
        """Raises BackendFailed when the system starts no process."""
        try:
            with ExitStack() as stack:
                ours, theirs = pair()
                stack.callback(ours.close)
                with theirs:
                    self._process = _start(birth, theirs.fileno(), region)
                stack.callback(_discard, self._process)
                self._pidfd = os.pidfd_open(self._process.pid)
                stack.pop_all()
        except OSError as error:
            raise BackendFailed(f"could not be started: {error}") from error
        self.pid = self._process.pid
        self._line = Line(ours)
        self._news = select.poll()
        self._news.register(self._line.fileno(), select.POLLIN)
        self._news.register(self._pidfd, select.POLLIN)
        self._why = ""

    def send(self, message: ToChild, files: Sequence[int] = ()) -> None:
        """That the child is gone shows in ``receive``, not here."""
        with suppress(OSError):
            self._line.send(message, files)

    def receive(self, timeout_s: float) -> FromChild | None:
        """The next message; None when none came in time.

        Raises EOFError when no more will come: the child has ended, or talks nonsense and was ended.
        """
        ready = [fd for fd, _ in self._news.poll(max(0.0, timeout_s) * 1000)]
        if not ready:
            return None
        # What it said before it ended comes first. Its end of the line closing would not do as the only sign: a process
        # that it has forked may hold that open.
        if self._line.fileno() not in ready:
            raise EOFError
        try:
            message = self._line.from_child()
        except msgspec.DecodeError as error:
            self.kill(f"said what makes no sense: {error}")
            raise EOFError from error
        if message is None:
            raise EOFError
        return message

    def blame(self, why: str) -> None:
        """What ``end`` is to say, unless something was to blame before."""
        self._why = self._why or why

    @property
    def blamed(self) -> str:
        """What is to blame so far; empty when nothing is."""
        return self._why

    def kill(self, why: str) -> None:
        """End it at once, and blame. ``receive`` gives what it had said, then no more, even if it takes its time to
        end: gigabytes are not given back in an instant."""
        self.blame(why)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with suppress(OSError):  # the line is closed at the other end as well
            self._line.hush()

    def end(self) -> str:
        """Make sure that it has ended, and say how it did, in words that go after its name. Once."""
        self.kill("")
        end = select.poll()
        end.register(self._pidfd, select.POLLIN)
        if end.poll(_REAP_S * 1000):
            self._process.wait()
        else:
            log.error("process %d does not end in %g s in spite of SIGKILL; it is left alone", self.pid, _REAP_S)
        self._line.close()
        os.close(self._pidfd)
        return self._why or ("does not end" if self.undead else how_it_ended(self._process.returncode))

    @property
    def undead(self) -> bool:
        """Whether it may write to its memory still, as it did not end."""
        return self._process.returncode is None


def _start(birth: Birth, socket_fd: int, region: SharedRegion) -> subprocess.Popen[bytes]:
    setup = Setup(
        device_id=birth.device_id,
        build=birth.build,
        parent_id=os.getpid(),
        log_level=logging.getLogger("tandem").getEffectiveLevel(),
        socket_fd=socket_fd,
        slab_fd=region.fileno(),
        slab_bytes=region.nbytes,
    )
    # A file and not a pipe: writing to it never blocks, and needs nobody who reads.
    with os.fdopen(os.memfd_create("tandem-setup"), "w+b") as file, _bound_to(birth.cpus):
        file.write(msgspec.msgpack.encode(setup))
        file.seek(0)
        return subprocess.Popen(
            command("tandem.workers.child"),
            stdin=file,
            pass_fds=(socket_fd, region.fileno()),
            env=environment(dict.fromkeys(_THREADS, str(birth.threads)) if birth.threads else None),
            # The terminal's Ctrl-C is for the parent, which lets its children finish.
            process_group=0,
        )


def _discard(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@contextmanager
def _bound_to(cpus: tuple[int, ...] | None) -> Iterator[None]:
    """Bind this thread for a moment: what it starts is born bound, before it makes its first threads."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
