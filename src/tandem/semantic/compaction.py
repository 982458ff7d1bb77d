"""Copying a journal without what is gone."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from tandem.semantic.base import Namespace
from tandem.semantic.records import Labelled, Stored, encode
from tandem.semantic.segments import WHOLE, frame, records
from tandem.verification import Promise

_BUFFER_BYTES = 1 << 20


def copy(sources: Sequence[Path], live: set[int], max_labels: int, flush: Callable[[int], None]) -> None:
    """Put into the place of the last of ``sources`` a file that stands for all of them: entries whose serial number is
    in ``live``, and of each promise the latest ``max_labels`` since its alarm rang.

    A crash leaves the sources, or the copy complete; then older sources are of no more use. What fails leaves the
    sources and nothing beside them. Raises OSError, Damaged.
    """
    target = sources[-1]
    temporary = target.with_suffix(".copy")
    try:
        _write(temporary, sources, live, max_labels, flush)
        os.replace(temporary, target)
    except BaseException:
        # Each try has a name of its own: on a full disk the halves of all would add up.
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _write(
    temporary: Path, sources: Sequence[Path], live: set[int], max_labels: int, flush: Callable[[int], None]
) -> None:
    labels: dict[tuple[Namespace, Promise], deque[Labelled]] = {}
    with open(temporary, "wb", buffering=_BUFFER_BYTES) as file:
        file.write(WHOLE)
        for path in sources:
            for record in records(path):
                if isinstance(record, Stored):
                    if record.serial in live:
                        file.write(frame(encode(record)))
                elif isinstance(record, Labelled):
                    kept = labels.setdefault((record.namespace, record.label.promise), deque(maxlen=max_labels))
                    kept.append(record)
                    if record.label.rang:
                        kept.clear()
                elif record.ids is None:
                    labels = {key: kept for key, kept in labels.items() if key[0] != record.namespace}
        for kept in labels.values():
            for label in kept:
                file.write(frame(encode(label)))
        file.flush()
        flush(file.fileno())
