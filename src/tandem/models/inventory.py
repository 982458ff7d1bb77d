"""What is on this machine: the models that could be served now, and what each of them is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from tandem.errors import ModelBroken, ModelUnsupported
from tandem.models.check import sha256_file
from tandem.models.files import CONFIG, decides_vectors, model_files
from tandem.models.folder import ModelFolder
from tandem.models.resolve import Sources
from tandem.models.store import Manifest

_LFS_BLOB = re.compile(r"[0-9a-f]{64}")
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")

Verdict: TypeAlias = Literal["whole", "differs", "nothing recorded"]


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``tandem models list``. ``problem`` says why a model can not be served; None for a good one.

    ``added_s`` is when the model came to this machine, in seconds since 1970-01-01 UTC, and ``origin`` where from.
    """

    name: str
    source: str
    path: str
    origin: str
    size_bytes: int
    fingerprint: str | None
    added_s: float
    problem: str | None = None


class ShownFile(msgspec.Struct, frozen=True):
    """``digest`` is ``sha256:...``, or ``git-sha1:...`` for a small file of the hub's cache; None when not known.

    It is the one recorded when the file came here, or with ``verify`` the one it has now.
    """

    path: str
    size_bytes: int
    digest: str | None


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's configs say; ``unsupported`` says why Tandem can not build it, None when it can.

    ``dims`` is the length of an embedding; ``max_tokens`` counts special tokens.
    """

    model_type: str | None
    layers: int | None = None
    hidden: int | None = None
    dims: int | None = None
    max_tokens: int | None = None
    pooling: str | None = None
    normalize: bool | None = None
    prompts: dict[str, str] = msgspec.field(default_factory=dict)
    unsupported: str | None = None


class ShownModel(msgspec.Struct, frozen=True, kw_only=True):
    """All of ``tandem models show``. ``verified`` is None when it was not asked for."""

    model: ListedModel
    architecture: Architecture
    files: tuple[ShownFile, ...]
    verified: Verdict | None = None
    differences: tuple[str, ...] = ()


def list_models(sources: Sources) -> list[ListedModel]:
    """Models in Tandem's store and whole ones in the hub's cache, by name. Damaged ones are listed with the problem."""
    return sorted([*_stored(sources), *_cached(sources)], key=lambda model: (model.name, model.source))


def show_model(name: str, sources: Sources, *, verify: bool = False) -> ShownModel:
    """Everything about one model on this machine; ``verify`` hashes every file in full.

    Raises ModelNotFound when it is not on this machine, ModelBroken when it is damaged and that is seen without
    hashing; what hashing finds is in ``differences``.
    """
    folder = sources.locate(name)
    manifest = sources.store.manifest(folder.name) if folder.source == "store" else None
    model = _listed(folder, manifest)
    recorded = _recorded(folder, manifest)
    paths = sorted({*_deciding(folder), *recorded})
    digests = {path: _digest(folder.path / path, recorded.get(path)) for path in paths} if verify else recorded
    files = tuple(ShownFile(path, (folder.path / path).stat().st_size, digests.get(path)) for path in paths)
    shown = ShownModel(model=model, architecture=_architecture(folder), files=files)
    if not verify:
        return shown
    differences = tuple(
        f"{path} is {digests[path]}, recorded was {expected}"
        for path, expected in recorded.items()
        if digests[path] != expected
    )
    verdict: Verdict = "differs" if differences else "whole" if recorded else "nothing recorded"
    return msgspec.structs.replace(shown, verified=verdict, differences=differences)


def _stored(sources: Sources) -> Iterator[ListedModel]:
    for name in sources.store.names():
        folder = ModelFolder(sources.store.path_of(name), name, "store")
        try:
            manifest = sources.store.manifest(name)
            sources.store.find(name)
            yield _listed(folder, manifest)
        except ModelBroken as error:
            yield _damaged(folder, error)


def _cached(sources: Sources) -> Iterator[ListedModel]:
    for name in sources.cached_names():
        try:
            found = sources.find_cached(name)
            if isinstance(found, ModelFolder):
                yield _listed(found, None)
        except ModelBroken as error:
            yield _damaged(ModelFolder(Path(), name, "hub"), error)


def _listed(folder: ModelFolder, manifest: Manifest | None) -> ListedModel:
    revision = f"revision {folder.path.name}" if folder.source == "hub" else ""
    # The link's own time where the hub's cache links: the file behind it may be older than this model.
    config = folder.path / CONFIG
    added_s = config.lstat().st_mtime if config.exists() else folder.path.stat().st_mtime
    return ListedModel(
        name=folder.name,
        source=folder.source,
        path=str(folder.path),
        origin=manifest.origin if manifest else revision,
        size_bytes=sum((folder.path / path).stat().st_size for path in _deciding(folder)),
        fingerprint=folder.fingerprint(),
        added_s=manifest.added_s if manifest else added_s,
    )


def _damaged(folder: ModelFolder, error: ModelBroken) -> ListedModel:
    return ListedModel(
        name=folder.name,
        source=folder.source,
        path=str(folder.path),
        origin="",
        size_bytes=0,
        fingerprint=None,
        added_s=0.0,
        problem=str(error),
    )


def _deciding(folder: ModelFolder) -> list[str]:
    relatives = (path.relative_to(folder.path).as_posix() for path in model_files(folder.path))
    return sorted(filter(decides_vectors, relatives))


def _recorded(folder: ModelFolder, manifest: Manifest | None) -> dict[str, str]:
    """Relative path -> digest when the file came here: the manifest's, or the names that the hub's cache gives."""
    if manifest is not None:
        return {record.path: f"sha256:{record.sha256}" for record in manifest.files}
    if folder.source != "hub":
        return {}
    digests = {}
    for relative in _deciding(folder):
        blob = (folder.path / relative).resolve().name
        if _LFS_BLOB.fullmatch(blob):
            digests[relative] = f"sha256:{blob}"
        elif _GIT_BLOB.fullmatch(blob):
            digests[relative] = f"git-sha1:{blob}"
    return digests


def _digest(path: Path, like: str | None) -> str:
    if like is None or like.startswith("sha256:"):
        return f"sha256:{sha256_file(path)}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error
    # git's name of a blob: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return f"git-sha1:{digest.hexdigest()}"


def _architecture(folder: ModelFolder) -> Architecture:
    # Imported here: numpy comes with it, and `list` and `rm` do not need it.
    from tandem.models.families import describe
    from tandem.models.lengths import max_tokens
    from tandem.models.sentence_files import read_pipeline

    config = folder.read_json(CONFIG) or {}
    model_type = config.get("model_type")
    try:
        pipeline = read_pipeline(folder)
        description = describe(config, pipeline)
    except ModelUnsupported as error:
        return Architecture(model_type=model_type, unsupported=str(error))
    return Architecture(
        model_type=model_type,
        layers=len(description.layers),
        hidden=description.hidden,
        dims=description.dims,
        max_tokens=max_tokens(folder, pipeline),
        pooling="+".join(pipeline.pooling),
        normalize=pipeline.normalize,
        prompts=pipeline.prompts,
    )
