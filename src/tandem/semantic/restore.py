"""A cache as it was before a restart, from what was written down.

**Time.** In a process the end of an entry is by the monotonic clock, so the calendar may jump as it likes. Over a
restart there is nothing but the calendar. An entry with a time to live is taken up only if its age can be believed:
stored before now, and less than its time ago. If the last thing written lies in the future, the calendar has gone back,
no age can be believed, and all entries with a time to live are dropped; those without stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tandem.clock import Clock
from tandem.errors import InvalidInput
from tandem.semantic.base import Namespace
from tandem.semantic.records import Labelled, Record, Stored
from tandem.semantic.shelves import Shelves
from tandem.semantic.space import Entry
from tandem.semantic.verdicts import Label

log = logging.getLogger("tandem.semantic")

# Rows added to an index at once: 1.5 MB at 384 dimensions.
_BATCH = 1024
# Calendars are set by small steps all the time.
_SLACK_S = 5.0


def restore(records: Callable[[], Iterable[Record]], shelves: Shelves, clock: Clock) -> int:
    """Put what is still good on ``shelves``; returns the highest serial number. ``records`` is gone through twice: what
    is still there can be told only at the end, and payloads are too many to hold meanwhile.

    What can not be kept is left out: expired, over the budget or the limit of namespaces, vectors of another dimension.
    """
    live, labels, highest, last_wall_s = _survey(records())
    now, wall_s = clock.now(), clock.wall()
    is_back = wall_s + _SLACK_S < last_wall_s
    if is_back:
        log.warning("the calendar went back by %.0f s: entries with a time to live are dropped", last_wall_s - wall_s)
    left_out = 0
    for batch in _batches(record for record in records() if isinstance(record, Stored) and record.serial in live):
        good = [record for record in batch if _is_fresh(record, wall_s, is_back)]
        left_out += len(batch) - len(good) - _admit(good, shelves, now, wall_s)
    for namespace, label in labels:
        space = shelves.find(namespace, now)
        if space is not None:
            space.verdicts.restore(label)
    if left_out:
        log.info("%d entries of the semantic cache were left out: expired, or over a limit", left_out)
    return highest


def _survey(records: Iterable[Record]) -> tuple[set[int], list[tuple[Namespace, Label]], int, float]:
    """The serials of what was neither deleted nor replaced, all labels, the highest serial, the latest time written."""
    live: dict[Namespace, dict[str, int]] = {}
    labels: dict[Namespace, list[Label]] = {}
    highest, last_wall_s = 0, -np.inf
    for record in records:
        ids = live.setdefault(record.namespace, {})
        if isinstance(record, Stored):
            ids[record.id] = record.serial
            highest, last_wall_s = max(highest, record.serial), max(last_wall_s, record.stored_wall_s)
        elif isinstance(record, Labelled):
            labels.setdefault(record.namespace, []).append(record.label)
        elif record.ids is None:
            del live[record.namespace]
            labels.pop(record.namespace, None)
        else:
            for one in record.ids:
                ids.pop(one, None)
    serials = {serial for ids in live.values() for serial in ids.values()}
    return serials, [(space, label) for space, found in labels.items() for label in found], highest, last_wall_s


def _batches(records: Iterator[Stored]) -> Iterator[list[Stored]]:
    """Records in their order, cut where the namespace or the dimension changes and at ``_BATCH``."""
    batch: list[Stored] = []
    for record in records:
        if batch and (
            len(batch) == _BATCH or record.namespace != batch[0].namespace or len(record.vector) != len(batch[0].vector)
        ):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def _is_fresh(record: Stored, wall_s: float, is_back: bool) -> bool:
    if record.ttl_s is None:
        return True
    return not is_back and -_SLACK_S <= wall_s - record.stored_wall_s < record.ttl_s


def _admit(batch: list[Stored], shelves: Shelves, now: float, wall_s: float) -> int:
    """Records of one namespace and dimension; how many could not be kept."""
    if not batch:
        return 0
    namespace, dims = batch[0].namespace, len(batch[0].vector) // 4
    try:
        space = shelves.find(namespace, now) or shelves.open(namespace, dims, now)
    except InvalidInput as error:
        log.info("%s is left out: %s", namespace, error)
        return len(batch)
    if space.index.dims != dims:
        return len(batch)
    entries = []
    for record in batch:
        age_s = max(0.0, wall_s - record.stored_wall_s)
        expires_s = np.inf if record.ttl_s is None else now + record.ttl_s - age_s
        entries.append(Entry(record.serial, record.id, record.payload, record.text, now - age_s, expires_s))
    shelves.admit(space, entries, np.frombuffer(b"".join(r.vector for r in batch), "<f4").reshape(-1, dims))
    return 0
