"""A job over a pipe: one pass, each window written as soon as it is embedded, nothing to go on with after a crash."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tandem.bulk.base import Block, Reader
from tandem.bulk.disk import check_output, disk_errors
from tandem.bulk.journal import Workspace
from tandem.bulk.options import JobOptions, OnError, Summary, fault, make_block, make_writer, open_reader
from tandem.bulk.pipeline import Embedding, embed_batch
from tandem.bulk.progress import Progress
from tandem.errors import JobError


def run_stream(options: JobOptions, embedding: Embedding, progress: Progress) -> Summary:
    """Raises JobError. An output file appears whole or not at all; what went to stdout before an error stays there."""
    if options.output_format == "parquet" and options.input_format == "jsonl":
        raise JobError(
            "Parquet wants every column's type before its first row, and a stream of JSON shows them only at its end; "
            "save the input to a file first, or write .jsonl"
        )
    reader = open_reader(options)
    writer = make_writer(options, reader, embedding.dimensions)
    summary = Summary()
    progress.phase("embedding", None)
    blocks = _blocks(options, reader, embedding, progress, summary)
    try:
        if options.output is None:
            assert options.stdout is not None, "an output is a file or a stream"
            with disk_errors("stdout"):
                writer.write(blocks, options.stdout)
                options.stdout.flush()
            return summary
        check_output(options.output, options.source.path, overwrite=options.overwrite)
        with Workspace(options.output, embedding.dimensions) as space:
            if (space.plan is not None or space.is_foreign) and not options.restart:
                raise JobError(f"{space.folder} holds an unfinished job; --restart throws it away")
            space.forget()
            with space.result() as out:
                writer.write(blocks, out)
            space.publish()
    finally:
        progress.close()
    return summary


def _blocks(
    options: JobOptions, reader: Reader, embedding: Embedding, progress: Progress, summary: Summary
) -> Iterator[Block]:
    # No reading ahead: a thread that waits on a silent pipe could not be stopped.
    for batch in reader.batches():
        rows, reasons = embed_batch(batch, embedding)
        if reasons and options.on_error is OnError.FAIL:
            index = min(reasons)
            raise JobError(fault(options, batch, index, reasons[index]))
        summary.records += len(rows)
        summary.without += len(reasons)
        yield make_block(batch, rows, np.isnan(rows[:, 0]), options.on_error)
        progress.advance(len(rows))
