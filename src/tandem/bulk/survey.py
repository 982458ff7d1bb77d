"""The first look at an input: every record is read before any is embedded."""

from __future__ import annotations

from io import BytesIO
from itertools import islice

import numpy as np

from tandem.bulk.base import Block
from tandem.bulk.journal import Survey
from tandem.bulk.options import JobOptions, OnError, fault, make_writer, open_reader
from tandem.bulk.progress import Progress
from tandem.errors import JobError

_SHOWN = 5


def survey(options: JobOptions, dimensions: int, progress: Progress) -> Survey:
    """Count records, learn column types, and write one batch into memory.

    So a broken line, or a column that the output can not hold, is reported now and not after hours of work. Raises
    JobError that names the first faults and says how many there are, unless ``on_error`` allows them.
    """
    assert options.source.path is not None, "a stream can not be read twice"
    progress.phase("checking", None)
    reader = open_reader(options, learn=True)
    shown: list[str] = []
    records = faulty = 0
    for batch in reader.batches():
        records = batch.end.records
        faulty += len(batch.reasons)
        for index, reason in islice(batch.reasons.items(), _SHOWN - len(shown)):
            shown.append(fault(options, batch, index, reason))
        progress.advance(len(batch.texts))
    progress.close()
    if faulty and options.on_error is OnError.FAIL:
        raise JobError(_report(shown, faulty, records))
    found = Survey(
        records=records,
        faulty=faulty,
        column=reader.column,
        types=reader.types,
        record_bytes=options.source.path.stat().st_size // max(records, 1),
    )
    _rehearse(options, dimensions, found)
    return found


def _rehearse(options: JobOptions, dimensions: int, found: Survey) -> None:
    reader = open_reader(options, found)
    blocks = (
        Block(batch.records, np.zeros((len(batch.texts), dimensions), np.float32), np.zeros(len(batch.texts), np.bool_))
        for batch in islice(reader.batches(), 1)
    )
    make_writer(options, reader, dimensions, found).write(blocks, BytesIO())


def _report(shown: list[str], faulty: int, records: int) -> str:
    more = [f"and {faulty - len(shown):,} more"] if faulty > len(shown) else []
    return (
        f"{faulty:,} of {records:,} rows can not be embedded; mend them, or use --on-error skip (leave them out) or "
        f"null (keep them without a vector). {'; '.join([*shown, *more])}"
    )
