"""Files and folders as a job needs them: errors in plain words, a lock, and what makes a rename last."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tandem.errors import JobError


def check_output(output: Path, source: Path | None, *, overwrite: bool) -> None:
    """Raises JobError when ``output`` can not be, or must not become, a result of ``source``."""
    if not output.parent.is_dir():
        raise JobError(f"the folder {output.parent} does not exist")
    if not output.exists():
        return
    if not output.is_file():
        raise JobError(f"{output} is not a file")
    if source is not None and output.samefile(source):
        raise JobError(f"{output} is the input; name another output")
    if not overwrite:
        raise JobError(f"{output} exists; --overwrite replaces it")


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turns an OSError into a JobError that names ``path`` and, for a full disk, what to do."""
    try:
        yield
    except BrokenPipeError:
        raise  # Whoever reads stdout has enough: no error, and the command line knows what to do.
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobError(f"no space left for {path}: free some, and run the same command again") from error
        raise JobError(f"{path}: {error.strerror or error}") from error


def lock_folder(folder: Path, output: Path) -> int:
    """Make ``folder`` and lock it; the descriptor holds the lock. Raises JobError when another job has it."""
    path = folder / "lock"
    while True:
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # The job before us has just removed the folder.
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise JobError(f"another job is writing {output}; wait for it, or choose another output") from None
            # What we locked may be a file that the job before us removed between our open and our lock.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """A rename or a new file is safe only when the folder that names it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
