"""``tandem bench serve``: the server as users meet it, over HTTP, from a second process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tandem.bench.bulk import bulk
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.context import Context
from tandem.bench.kill import kill
from tandem.bench.lifetime import memory, start
from tandem.bench.options import BenchOptions
from tandem.bench.quality import quality
from tandem.bench.report import Report
from tandem.bench.singles import one, singles
from tandem.bench.texts import cutter, english_mix, questions
from tandem.bench.workers import workers
from tandem.config import Settings, source_options
from tandem.errors import ConfigError
from tandem.models.loaded import load_model
from tandem.models.resolve import find_model

PARTS: dict[str, Callable[[Context], None]] = {
    "bulk": bulk,
    "singles": singles,
    "one": one,
    "quality": quality,
    "start": start,
    "memory": memory,
    "workers": workers,
    "kill": kill,
}


def serve(options: BenchOptions, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Run the parts that ``options.only`` names, all by default; ``progress`` hears of each.

    Raises ConfigError, ModelError, BackendFailed, and JobError when a server or a load breaks.
    """
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        raise ConfigError(f"unknown part {', '.join(unknown)}; known are: {', '.join(PARTS)}")
    settings = Settings(cache="off", model=options.model, precision=options.precision, threads=options.threads)
    folder = find_model(settings.model, source_options(settings))
    mix = english_mix(options.data, cutter(folder.path), options.texts)
    asked = questions(options.data)
    workload = {
        "model": f"{folder.name}, {options.precision}, {options.threads} threads",
        "texts": f"{len(mix.texts)} texts ({mix.source}), {len(asked.texts)} questions ({asked.source})",
        "rounds": f"{options.rounds} counted, 1 warm-up, interleaved; seed {options.seed}",
        "load": f"a second process on the same cores; bulk from {options.connections} connections",
    }
    report = Report("tandem bench serve", conditions(workload))
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory() as work:
        context = Context(options, settings, load_model(folder), mix, asked, Path(work), report)
        for name, part in PARTS.items():
            if name in options.only or not options.only:
                progress(name)
                part(context)
    report.busy_by_others = neighbours.share()
    return report
