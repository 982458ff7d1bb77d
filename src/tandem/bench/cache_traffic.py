"""Streams of real texts through the exact caches: what a service with such traffic is spared."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
from pathlib import Path

import msgspec

from tandem.bench.texts import questions
from tandem.build import build_engine
from tandem.caching.second_level import SecondLevel
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.types import EmbedRequest, Outcome, Source

_TEXTS = 20_000
_LIST = 64
# Of a row of 384 numbers in int8 with what is known of it; and of an empty memory.
_ENTRY_BYTES = 460
_LEAST_BYTES = 64 << 10


class Stream(msgspec.Struct, frozen=True):
    """Texts in the order in which they came."""

    name: str
    source: str
    texts: list[str]


def streams(data: Path | None) -> list[Stream]:
    """Those of which the data is here."""
    if data is None:
        return []
    found = []
    for name, source, file, read in (
        ("banking77", "requests to a bank, each a different one", "banking77/train.csv", _banking),
        ("clinc150", "requests to an assistant, each a different one", "clinc150/train_val.json", _clinc),
        ("qqp", "pairs of questions as people asked them", "qqp/qqp_tune.tsv.gz", _qqp),
        ("ragpulse", "questions to a service that looks things up", "ragpulse/0_trace.jsonl", _ragpulse),
    ):
        if (data / file).is_file():
            found.append(Stream(name, source, read(data / file)[:_TEXTS]))
    found.append(Stream("search-queries", "Natural Questions test", questions(data).texts[:_TEXTS]))
    return found


class Share(msgspec.Struct, frozen=True):
    """Of all texts and of all tokens, from 0 to 1."""

    texts: float
    tokens: float


class Passage(msgspec.Struct, frozen=True):
    """What answered a stream. ``by``: the shares of memory, of the disk, of a text that was being computed for another
    place of its list, and of the model. ``possible``: the share of the texts whose very words had come before.
    ``answered`` of the texts, and how many were ``computed``, of how many ``different`` ones."""

    by: dict[str, Share]
    possible: float
    answered: int
    computed: int
    different: int


def through_caches(settings: Settings, stream: Stream, folder: Path) -> Passage:
    """Lists of 64 through a memory that holds a tenth of the different texts, and a disk in ``folder`` that holds all;
    the model itself left out."""
    computed: list[Outcome] = []
    different = len(set(stream.texts))
    way = msgspec.structs.replace(
        settings,
        backend="fake",
        warm=False,
        cache_bytes=different // 10 * _ENTRY_BYTES + _LEAST_BYTES,
        cache_rows="int8",
        cache_l2="disk",
        cache_dir=str(folder),
    )
    engine = build_engine(way, SystemClock(), computed.append)
    return asyncio.run(_through(engine, stream, computed))


async def _through(engine: Engine, stream: Stream, computed: list[Outcome]) -> Passage:
    await engine.start()
    assert engine.recall is not None
    store = engine.recall.cache.store
    assert isinstance(store, SecondLevel)
    await store.ready()
    answered = 0
    for start in range(0, len(stream.texts), _LIST):
        answered += len((await engine.embed(EmbedRequest(inputs=stream.texts[start : start + _LIST]))).rows)
        # As long as people take to ask again: what was computed is kept by then.
        await asyncio.sleep(0)
        await store.flush()
    tiers = engine.recall.report().tiers
    await engine.close()
    n, tokens = len(stream.texts), sum(tier.tokens for tier in tiers.values())
    model = Share(sum(one.n for one in computed) / n, sum(one.tokens for one in computed) / tokens)
    missed = tiers[Source.MISS.value]
    by = {
        "memory": Share(tiers[Source.L1.value].texts / n, tiers[Source.L1.value].tokens / tokens),
        "disk": Share(tiers[Source.L2.value].texts / n, tiers[Source.L2.value].tokens / tokens),
        "in flight": Share(missed.texts / n - model.texts, missed.tokens / tokens - model.tokens),
        "model": model,
    }
    different = len(set(stream.texts))
    return Passage(by, 1 - different / n, answered, sum(one.n for one in computed), different)


def _banking(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def _clinc(path: Path) -> list[str]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return [row[0] for part in found.values() for row in part]


def _qqp(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        return [text for line in file for text in line.rstrip("\n").split("\t")[1:]]


def _ragpulse(path: Path) -> list[str]:
    """The trace has no texts; its ids repeat as those did, and their tokens are made up."""
    with path.open(encoding="utf-8") as file:
        rows = sorted((json.loads(line) for line in file if line.strip()), key=lambda row: float(row["timestamp"]))
    return [f"question {number}" for row in rows for number in row["hash_ids"]["user_input"]]
