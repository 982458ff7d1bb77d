"""A model on disk: a folder, what the user called it, and where it came from."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from tandem.errors import ModelBroken
from tandem.models.files import decides_vectors, model_files
from tandem.models.fingerprint import fingerprint_files

T = TypeVar("T")


class ModelFolder(msgspec.Struct, frozen=True):
    """``name`` is the canonical hub id where it is known, else what the user wrote.

    ``source`` is ``folder``, ``store``, ``hub`` or ``package-index``.
    """

    path: Path
    name: str
    source: str

    def file(self, relative: str) -> Path | None:
        """The file's path, None when there is no such file.

        ``relative`` may come out of the model's own ``modules.json``: one that leads out of the folder is refused.
        A symbolic link is followed, as the hub's cache is made of them. Raises ModelBroken for both failures: a path
        that leads out, and one that may not be looked at.
        """
        parts = PurePosixPath(relative).parts
        if ".." in parts or PurePosixPath(relative).is_absolute() or "\\" in relative or "\0" in relative:
            raise ModelBroken(f"{self.name}: the path {relative!r} leads out of the model's folder {self.path}")
        path = self.path.joinpath(*parts)
        try:
            return path if path.is_file() else None
        except OSError as error:
            raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error

    def require(self, relative: str) -> Path:
        """The file's path; raises ModelBroken naming the file when it is missing."""
        path = self.file(relative)
        if path is None:
            raise ModelBroken(f"{self.path / relative}: missing, and the model {self.name!r} can not do without it")
        return path

    def read_bytes(self, relative: str) -> bytes | None:
        """The file's content, None when there is no such file; raises ModelBroken when it can not be read."""
        path = self.file(relative)
        if path is None:
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise ModelBroken(f"{path}: can not be read: {error.strerror or error}") from error

    def read_json(self, relative: str) -> dict[str, Any] | None:
        """The JSON object in the file, None when there is no such file; ModelBroken when it holds anything else."""
        return self._decode(relative, dict[str, Any])

    def read_json_list(self, relative: str) -> list[Any] | None:
        """The JSON list in the file (``modules.json`` is one), None when there is no such file; else ModelBroken."""
        return self._decode(relative, list[Any])

    def fingerprint(self) -> str:
        """32 hex digits that stand for the vectors this model makes: same files, same digits, whatever its name.

        Covers every config and tokenizer file in full, and of the weights the size, the header and a sample of every
        tensor (see ``fingerprint_files``), so it costs milliseconds. It tells models apart in cache keys; it is no
        seal against tampering, for which there is ``tandem models show --verify``.
        """
        found = (path.relative_to(self.path).as_posix() for path in model_files(self.path))
        return fingerprint_files(self.path, sorted(filter(decides_vectors, found)))

    def _decode(self, relative: str, kind: type[T]) -> T | None:
        content = self.read_bytes(relative)
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelBroken(f"{self.path / relative}: not the JSON it should be: {error}") from error
