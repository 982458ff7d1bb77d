"""Streams of real texts with the model's own rows, for ``bench/near_duplicates.py``."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import built_model
from tandem.caching.near_duplicate import Query
from tandem.models.loaded import LoadedModel
from tandem.types import Rows, TokenBatch

_BATCH = 64


class Choice(msgspec.Struct, frozen=True):
    """``texts`` at most of each of ``sets``, drawn by ``seed``; ``rows``: a folder of rows that are there already."""

    sets: tuple[str, ...]
    texts: int
    seed: int
    rows: Path | None


class Stream(msgspec.Struct, frozen=True):
    """Texts of one data set that the token key tells apart, shuffled, with the model's rows."""

    name: str
    queries: list[Query]
    rows: Rows

    def order(self, seed: int) -> Stream:
        places = np.random.default_rng(seed).permutation(len(self.queries))
        return Stream(self.name, [self.queries[place] for place in places], self.rows[places])


class Encoder:
    """The model, or its first layers."""

    def __init__(self, model: LoadedModel, layers: int | None = None) -> None:
        described = msgspec.structs.replace(model.description, layers=model.description.layers[:layers])
        options = BackendOptions(threads=2)
        self._backend = BACKENDS.get("openvino")(built_model(described, model.weights), options)

    def run_one(self, batch: TokenBatch) -> Rows:
        return self._backend.run(batch)

    def rows(self, queries: Sequence[Query]) -> Rows:
        order = sorted(range(len(queries)), key=lambda place: len(queries[place].ids))
        parts = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        found = np.concatenate([self._backend.run(batch_of([queries[place].ids for place in part])) for part in parts])
        rows = np.empty_like(found)
        rows[order] = found
        return rows


def batch_of(rows: Sequence[Sequence[int]]) -> TokenBatch:
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), -(-int(lengths.max()) // 8) * 8), np.int32)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    return TokenBatch(ids, lengths)


def texts_of(name: str, data: Path) -> list[str]:
    folder = data / name
    if name == "banking77":
        with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
            return [row["text"] for row in csv.DictReader(file)]
    if name == "clinc150":
        return [text for part in json.loads((folder / "train_val.json").read_bytes()).values() for text, _ in part]
    if name == "qqp":
        with gzip.open(folder / "qqp_tune.tsv.gz", "rt", encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [text for row in rows for text in (row["text_a"], row["text_b"])]
    if name == "scifact":
        with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
            titles = [json.loads(line)["title"] for line in file]
        claims = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in claims] + titles
    questions = (folder / "topics.dpr.nq.test.txt").read_text(encoding="utf-8").splitlines()
    bing = (folder / "topics.msmarco-passage.dev-subset.txt").read_text(encoding="utf-8").splitlines()
    million = (folder / "topics.mq.1-10000.txt").read_text(encoding="latin-1").splitlines()
    return (
        [line.partition("\t")[0] for line in questions]
        + [line.partition("\t")[2] for line in bing]
        + [line.partition(":")[2] for line in million]
    )


def streams(choice: Choice, data: Path, model: LoadedModel, encoder: Encoder) -> Iterator[Stream]:
    for name in choice.sets:
        stored = choice.rows / f"{name}.json" if choice.rows else None
        known = stored is not None and stored.is_file()
        texts = json.loads(stored.read_bytes()) if stored is not None and known else texts_of(name, data)
        places = np.random.default_rng(choice.seed).permutation(len(texts))
        picked: dict[tuple[int, ...], int] = {}
        for place in places.tolist():
            if len(picked) < choice.texts:
                # One text for each list of ids: the token key, which is exact, answers the others.
                (ids,) = model.tokenizer.encode([texts[place].strip()], truncate=True).ids
                picked.setdefault(tuple(ids), place)
        queries = [Query(texts[place].strip(), list(ids)) for ids, place in picked.items()]
        if stored is not None and known:
            rows = np.load(stored.with_suffix(".npy"), mmap_mode="r")[list(picked.values())]
        else:
            rows = encoder.rows(queries)
        yield Stream(name, queries, np.ascontiguousarray(rows, np.float32))
