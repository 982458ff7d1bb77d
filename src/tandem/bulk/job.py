"""A bulk job over files: look at the whole input, embed it window by window, write the output in one go.

Looking first costs two minutes for ten gigabytes and buys much: a broken line is reported before hours of work and not
after, the time left is known, and so are the column types that Parquet wants before its first row. Why a crash loses
and doubles nothing is argued in ``journal.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tandem.bulk.base import Block, Reader
from tandem.bulk.disk import check_output
from tandem.bulk.journal import Identity, Plan, Survey, Terms, Workspace
from tandem.bulk.options import JobOptions, OnError, Summary, fault, make_block, make_writer, open_reader
from tandem.bulk.pipeline import Embedding, embed_batch, read_ahead
from tandem.bulk.progress import Progress
from tandem.bulk.stream import run_stream
from tandem.bulk.survey import survey
from tandem.errors import JobError, TandemError

_VALUE_BYTES = {"jsonl": 11}
"""What one float takes in the output, to foresee a full disk; 4 elsewhere."""


def check_job(options: JobOptions) -> None:
    """What can be said without a model: JobError for a wrong input, output or column. Streams are not touched."""
    if options.source.path is not None:
        open_reader(options)
    if options.output is not None:
        check_output(options.output, options.source.path, overwrite=True)


def run_job(options: JobOptions, embedding: Embedding, progress: Progress) -> Summary:
    """Embed ``options.source`` into ``options.output``.

    Raises JobError, and whatever the model raises that no single row is to blame for. Where both ends are files, the
    same call then goes on from where it stopped, also after ``kill -9`` and a power cut.
    """
    source, output = options.source.path, options.output
    if source is None or output is None:
        return run_stream(options, embedding, progress)
    column = open_reader(options).column
    settings = {**embedding.settings, "input format": options.input_format, "column": column}
    terms = Terms(Identity.of(source), settings)
    check_output(output, source, overwrite=True)
    with Workspace(output, embedding.dimensions) as space:
        finished = _settle(space, terms, options.restart)
        if finished is not None:
            progress.note("an earlier run had finished; nothing was left to do")
            return Summary(finished.records, finished.faulty, finished.records)
        check_output(output, source, overwrite=options.overwrite)
        job = _Job(options, embedding, progress, space)
        job.prepare(terms)
        try:
            job.embed()
            return job.write(source)
        except (TandemError, KeyboardInterrupt):
            progress.close()
            progress.warn(f"stopped: {job.saved()}; run the same command again to go on")
            raise


def _settle(space: Workspace, terms: Terms, restart: bool) -> Survey | None:
    """Drop what is of no use any more. Returns the survey of a finished job that only had not been tidied up."""
    plan = space.plan
    if space.is_foreign and not restart:
        raise JobError(f"{space.folder} is not understood, perhaps another version's; --restart throws it away")
    if plan is None or restart:
        space.forget()
        return None
    differences = plan.terms.differences(terms)
    if space.is_over:
        space.forget()
        return None if differences else plan.survey
    if differences:
        raise JobError(
            f"{space.folder} holds an unfinished job with {space.done.records:,} texts done, but "
            f"{'; '.join(differences)}. Make these equal to go on, or throw that work away with --restart"
        )
    return None


class _Job:
    """The three steps; ``space`` is all they share with an earlier run."""

    def __init__(self, options: JobOptions, embedding: Embedding, progress: Progress, space: Workspace) -> None:
        self._options = options
        self._embedding = embedding
        self._progress = progress
        self._space = space
        self._survey = Survey(0, 0, "", None, 0)
        self._summary = Summary()

    def prepare(self, terms: Terms) -> None:
        """Go on with the plan that is there, or look at the input and make one."""
        space = self._space
        if space.plan is None:
            self._survey = survey(self._options, self._embedding.dimensions, self._progress)
            space.begin(Plan(terms, self._survey))
        else:
            self._survey = space.plan.survey
            self._summary.resumed_at = space.done.records
            self._progress.note(f"going on at {space.done.records:,} of {self._survey.records:,} texts")
        self._warn_of_space()

    def embed(self) -> None:
        """Whatever is not done yet. Saving one window overlaps with the model's next."""
        space = self._space
        first = space.done.records
        self._progress.phase("embedding", self._survey.records, first)
        saving: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="save") as pool:
            for batch in read_ahead(open_reader(self._options, self._survey).batches(space.done)):
                rows, reasons = embed_batch(batch, self._embedding)
                if reasons and self._options.on_error is OnError.FAIL:
                    index = min(reasons)
                    raise JobError(fault(self._options, batch, index, reasons[index]))
                if saving is not None:
                    saving.result()
                saving = pool.submit(space.commit, first, rows, batch.end)
                first = batch.end.records
                self._progress.advance(len(rows))
            if saving is not None:
                saving.result()
        self._progress.close()

    def write(self, source: Path) -> Summary:
        """The output, from the input and the saved rows."""
        options, space, found = self._options, self._space, self._survey
        assert space.plan is not None, "prepare made one"
        if changed := space.plan.terms.input.differences(Identity.of(source)):
            raise JobError(f"{options.source.name} was changed during the job: {changed[0]}; start anew with --restart")
        if not space.has_result:
            self._progress.phase("writing", found.records)
            reader = open_reader(options, found)
            with space.result() as out:
                make_writer(options, reader, self._embedding.dimensions, found).write(self._blocks(reader), out)
            self._progress.close()
        space.publish()
        return self._summary

    def saved(self) -> str:
        return f"{self._space.done.records:,} of {self._survey.records:,} texts are saved"

    def _blocks(self, reader: Reader) -> Iterator[Block]:
        summary, options = self._summary, self._options
        for batch in reader.batches():
            n = len(batch.texts)
            vectors = self._space.rows(batch.end.records - n, n)
            missing = np.isnan(vectors[:, 0])
            summary.records += n
            summary.without += int(missing.sum())
            if missing.any() and options.on_error is OnError.FAIL:
                index = int(np.flatnonzero(missing)[0])
                raise JobError(fault(options, batch, index, "it got no vector in an earlier run; see --on-error"))
            yield make_block(batch, vectors, missing, options.on_error)
            self._progress.advance(n)
        # The plan's input is checked, so this can only be a fault of ours; better loud than short.
        if summary.records != self._survey.records:
            raise JobError(f"{options.source.name} had {self._survey.records} rows and now has {summary.records}")

    def _warn_of_space(self) -> None:
        options, found, dimensions = self._options, self._survey, self._embedding.dimensions
        other_columns = 0 if options.output_format == "npy" else found.record_bytes
        result = found.records * (dimensions * _VALUE_BYTES.get(options.output_format, 4) + other_columns)
        need = result + 4 * dimensions * (found.records - self._space.done.records)
        free = shutil.disk_usage(self._space.folder).free
        if need > free:
            self._progress.warn(f"this takes about {need / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free")
