"""The real hub, through ``huggingface_hub``: its cache, its token, its environment variables. The only import of it."""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from httpx2 import HTTPError, InvalidURL
from huggingface_hub import HfApi, constants, hf_hub_download, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import (
    CacheNotFound,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from tqdm import tqdm

from tandem.errors import DownloadFailed
from tandem.models.hub import HUB, Absent, HubCalls, HubFile, HubListing
from tandem.models.sources import NotHere

T = TypeVar("T")

# What a network without a hub makes of a request: no route, no such host, a proxy's page, JSON that is not the hub's.
_UNREACHABLE = (HTTPError, InvalidURL, OSError, ValueError, LookupError, TypeError)
_MIRROR = "set HF_ENDPOINT to a mirror or HTTPS_PROXY to a proxy if there is one"


def hugging_face() -> HubCalls:
    """The four calls against the hub that the environment names."""
    # Left to itself the library fetches a list of coding agents and tells the hub which one it runs under.
    # Off for the whole process, as the library knows no narrower switch; a user who has set the variable decides.
    if "HF_HUB_DISABLE_TELEMETRY" not in os.environ:
        constants.HF_HUB_DISABLE_TELEMETRY = True
    return HubCalls(listing=_listing, download=_download, cached=_cached, cached_ids=_cached_ids)


def _listing(hub_id: str, timeout_s: float) -> HubListing | NotHere:
    try:
        info = _within(timeout_s, lambda: HfApi().model_info(hub_id, timeout=timeout_s, files_metadata=True))
    except OfflineModeIsEnabled:
        return NotHere(HUB, "HF_HUB_OFFLINE is set and its cache does not have the model", "unset HF_HUB_OFFLINE")
    except GatedRepoError:
        return NotHere(HUB, f"{hub_id} is gated", "accept the model's terms on its page, then `hf auth login`")
    except RepositoryNotFoundError:
        return NotHere(
            HUB, f"there is no {hub_id}, or it is private", "check the name; `hf auth login` for private models"
        )
    except HfHubHTTPError as error:
        return NotHere(HUB, f"it answered with status {error.response.status_code}", "try again later")
    except _UNREACHABLE as error:
        return NotHere(HUB, f"can not be reached: {_short(error)}", _MIRROR)
    _sweep(hub_id)
    files = (
        HubFile(sibling.rfilename, sibling.lfs.size, sibling.lfs.sha256)
        if sibling.lfs
        else HubFile(sibling.rfilename, sibling.size)
        for sibling in info.siblings or ()
    )
    return HubListing(info.sha or "", tuple(files))


def _download(hub_id: str, path: str, timeout_s: float, on_bytes: Callable[[int], None]) -> Path | None:
    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        """Reports where tqdm would draw: the library takes a class, and drawing is ``display``'s alone."""

        monitor_interval = 0
        disable: bool

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            on_bytes(int(self.n))
            return True

        def close(self) -> None:
            if not self.disable:
                self.disable = True
                self._decr_instances(self)

    try:
        return Path(hf_hub_download(hub_id, path, etag_timeout=timeout_s, tqdm_class=Bar))
    except EntryNotFoundError as error:
        if isinstance(error, HfHubHTTPError):
            return None
        raise DownloadFailed(f"{path} of {hub_id}: the hub can not be reached any more; try again") from error
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "no space left for the hub's cache; free some, or set HF_HOME elsewhere" if full else _short(error)
        raise DownloadFailed(f"{path} of {hub_id} could not be fetched: {reason}") from error


def _cached(hub_id: str, path: str) -> Path | Absent | None:
    found = try_to_load_from_cache(hub_id, path)
    if isinstance(found, str):
        return Path(found)
    return None if found is None else "absent"


def _cached_ids() -> list[str]:
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(repository.repo_id for repository in repositories if repository.repo_type == "model")


def _sweep(hub_id: str) -> None:
    """Remove the halves of files that killed processes left in the cache.

    The library names each attempt's half by chance and never takes it up again, so a server that is killed and started
    over and over would fill its disk. A half whose lock can be had belongs to nobody.
    """
    cache, folder = Path(constants.HF_HUB_CACHE), f"models--{hub_id.replace('/', '--')}"
    for half in (cache / folder / "blobs").glob("*.incomplete"):
        etag = half.name.partition(".")[0]
        # BlockingIOError: somebody is at it. FileNotFoundError: not by this version of the library; leave it alone.
        with suppress(OSError), (cache / ".locks" / folder / f"{etag}.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            half.unlink()


def _within(timeout_s: float, ask: Callable[[], T]) -> T:
    """``ask()``, or TimeoutError after ``timeout_s``: a name look-up has no timeout of its own and can hang for long.

    The thread that hangs is left behind; as a daemon it does not keep the process.
    """
    answers: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except (*_UNREACHABLE, RuntimeError) as error:
            answers.put(error)

    threading.Thread(target=run, name="tandem-hub", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _short(error: BaseException) -> str:
    """The first line: the rest is advice for callers of the library, and request ids."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
