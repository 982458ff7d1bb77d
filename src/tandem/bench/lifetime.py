"""A server's beginning and its middle: start to first answer, and whether memory stays flat."""

from __future__ import annotations

import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np

from tandem.bench.context import Context
from tandem.bench.load import LoadJob, run_load, write_bodies
from tandem.bench.processes import HOST, Server
from tandem.bench.report import Series, at_most, shown
from tandem.bench.stats import summarize

SAMPLE_S = 1.0
LONGEST_LIST = 16
LISTS = 500


def start(context: Context) -> None:
    """The process's start to its first right answer, files in the page cache after the first round."""
    taken = []
    for _ in range(max(3, context.options.rounds) + 1):
        with context.start(context.tandem) as server:
            taken.append(server.first_answer_s)
    report = context.report
    counted = summarize(taken[1:])
    report.figures.append(at_most("start to first answer, model in the store", 3.0, counted, " s"))
    report.details["start to first answer, the uncounted first, s"] = taken[0]
    report.series.append(Series("tandem, start to first answer", "s", counted))


def memory(context: Context) -> None:
    """Lists of 1 to 16 texts of all lengths and languages, from 8 connections, and the resident memory meanwhile."""
    seconds = context.options.minutes * 60
    bodies = context.folder / "mixed.bodies"
    with context.start(context.tandem) as server:
        write_bodies(bodies, [server.spec.body(texts) for texts in _lists(context)])
        job = LoadJob(
            host=HOST,
            port=server.port,
            path=server.spec.path,
            bodies=str(bodies),
            connections=context.options.connections,
            seconds=seconds,
        )
        with ThreadPoolExecutor(1) as thread:
            done = threading.Event()
            load = thread.submit(run_load, job)
            load.add_done_callback(lambda _: done.set())
            samples = _watch(server, done)
            result = load.result()
    context.note_errors("memory", result)
    _report(context, samples, result.ok)


def growth(samples: list[int]) -> float:
    """How much the last half grew: the median of its last fifth over that of its first fifth, minus 1."""
    half = samples[len(samples) // 2 :]
    fifth = max(1, len(half) // 5)
    return median(half[-fifth:]) / median(half[:fifth]) - 1


def _report(context: Context, samples: list[int], requests: int) -> None:
    report = context.report
    name = f"memory after {context.options.minutes:g} minutes of mixed lengths, growth of the last half"
    report.figures.append(at_most(name, 2.0, 100 * growth(samples), " %"))
    report.figures.append(shown("resident memory at the end", samples[-1] / 2**20, " MiB", 0))
    report.details["memory"] = {"every_s": SAMPLE_S, "rss_bytes": samples, "requests": requests}


def _watch(server: Server, done: threading.Event) -> list[int]:
    samples = [server.rss_bytes()]
    due = time.perf_counter()
    while not done.wait(max(0.0, due + SAMPLE_S - time.perf_counter())):
        due += SAMPLE_S
        samples.append(server.rss_bytes())
    return samples


def _lists(context: Context) -> list[list[str]]:
    """Lists of random length over the whole mix, its longest texts uncut: the server has to cut those itself."""
    data = context.options.data
    path = data / "length-mix" / "texts.jsonl.gz" if data else None
    texts = context.mix.texts
    if path is not None and path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in file]
    rng = np.random.default_rng(context.options.seed)
    return [[texts[i] for i in rng.integers(0, len(texts), rng.integers(1, LONGEST_LIST + 1))] for _ in range(LISTS)]
