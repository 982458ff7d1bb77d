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
from tandem.clock import SystemClock
from tandem.config import Settings
from tandem.engine import Engine
from tandem.types import EmbedRequest, Outcome

_TEXTS = 20_000
_LIST = 64


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


def through_caches(settings: Settings, stream: Stream) -> dict[str, float]:
    """The share of the texts, and of the tokens, that need not be computed: by the text's words, and with the tokens'
    key beside it. Lists of 64, the model itself left out."""
    computed: list[Outcome] = []
    fake = msgspec.structs.replace(settings, backend="fake", cache_rows="int8", warm=False)
    engine = build_engine(fake, SystemClock(), computed.append)
    return asyncio.run(_through(engine, stream, computed))


async def _through(engine: Engine, stream: Stream, computed: list[Outcome]) -> dict[str, float]:
    await engine.start()
    words: set[str] = set()
    repeats = tokens = 0
    for start in range(0, len(stream.texts), _LIST):
        texts = stream.texts[start : start + _LIST]
        repeats += sum(text in words for text in texts) + len(texts) - len(set(texts))
        words.update(texts)
        tokens += sum((await engine.embed(EmbedRequest(inputs=texts))).token_counts)
        await asyncio.sleep(0)
    await engine.close()
    n = max(1, len(stream.texts))
    return {
        "same words": repeats / n,
        "same tokens too": 1 - sum(outcome.n for outcome in computed) / n,
        "tokens spared": 1 - sum(outcome.tokens for outcome in computed) / max(1, tokens),
    }


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
    """The trace has no texts; its ids repeat as those did."""
    with path.open(encoding="utf-8") as file:
        rows = sorted((json.loads(line) for line in file), key=lambda row: float(row["timestamp"]))
    return [f"question {number}" for row in rows for number in row["hash_ids"]["user_input"]]
