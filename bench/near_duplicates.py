"""The near-duplicate tier on real texts: three keys raced, the promise on streams it never saw, and what it costs.

Run from the repository: ``python -m bench.near_duplicates --data ../shared/data``; ``--rows FOLDER`` holds rows that
are computed already, NAME.npy (float32 [n, d]) beside NAME.json (the n texts). ``--part`` picks some
of race, promise and cost.

**race**: for each data set and key, the share of texts that the best threshold in hindsight could serve at a share of
error. Keys: ``static``, ``minhash``, and the first layers of the same model as the smaller model before it: six layers
are the model, so ``3 layers`` stands for a key at half its price. With the guards as they are by default, and strict.
**promise**: streams in 20 shuffled orders of each data set. The threshold is learned on the first half; kept means that
of what is served of the second half no larger share is under the bound than was allowed.
**cost**: one look-up with all data sets' texts as anchors, against one forward pass of one text.

It could mislead in that shuffled data sets have no time of day: real traffic drifts, which is the alarm's business.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from tandem.backends import BACKENDS, BackendOptions
from tandem.backends.graph_model import built_model
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.report import Check, Report, at_least, at_most, shown, table
from tandem.bench.texts import data_folder
from tandem.caching.guards import Strictness
from tandem.caching.near_anchors import near_index
from tandem.caching.near_curve import Outcome, Replay, judge, most, replay
from tandem.caching.near_duplicate import NearDuplicateTier, NearOptions, Query
from tandem.caching.signatures import GivenSigner, MinHashSigner, Signer, StaticSigner
from tandem.models.loaded import LoadedModel, load_model
from tandem.models.resolve import find_model
from tandem.models.sources import SourceOptions
from tandem.types import Rows, TokenBatch
from tandem.verification import Promise

NAMES = ("banking77", "clinc150", "qqp", "search-queries", "scifact")
BOUNDS = (0.95, 0.9, 0.8)
ERRORS = (0.01, 0.05, 0.1)
LAYERS = (1, 3, 5)
PROMISES = ((0.95, 0.01), (0.95, 0.05), (0.9, 0.05), (0.85, 0.05), (0.8, 0.05), (0.8, 0.01))
ORDERS = 20
_BATCH = 64


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


def streams(args: argparse.Namespace, data: Path, model: LoadedModel, encoder: Encoder) -> Iterator[Stream]:
    for name in args.set:
        stored = args.rows / f"{name}.json" if args.rows else None
        known = stored is not None and stored.is_file()
        texts = json.loads(stored.read_bytes()) if stored is not None and known else texts_of(name, data)
        places = np.random.default_rng(args.seed).permutation(len(texts))
        picked: dict[tuple[int, ...], int] = {}
        for place in places.tolist():
            if len(picked) < args.texts:
                # One text for each list of ids: the token key, which is exact, answers the others.
                (ids,) = model.tokenizer.encode([texts[place].strip()], truncate=True).ids
                picked.setdefault(tuple(ids), place)
        queries = [Query(texts[place].strip(), list(ids)) for ids, place in picked.items()]
        if known:
            rows = np.load(args.rows / f"{name}.npy", mmap_mode="r")[list(picked.values())]
        else:
            rows = encoder.rows(queries)
        yield Stream(name, queries, np.ascontiguousarray(rows, np.float32))


def race(found: Sequence[Stream], model: LoadedModel) -> str:
    head = ("data set", "key", "guards", "found", *(f"{b} at {e:.0%}" for b in BOUNDS for e in ERRORS))
    lines = []
    for stream in found:
        for name, signer, queries in keys(stream, model):
            for strictness in Strictness:
                seen = later(replay(queries, stream.rows, NearOptions(strictness=strictness), signer()))
                shares = [most(seen.similarities, seen.cosines < b, e) / seen.texts for b in BOUNDS for e in ERRORS]
                cells = [f"{share:.2%}" for share in (len(seen.places) / seen.texts, *shares)]
                lines.append((stream.name, name, strictness.value, *cells))
                print(table(head, lines[-1:]), flush=True)
    return table(head, lines)


def later(seen: Replay) -> Replay:
    """Without the first 2,000 texts, from which the static key is learned."""
    kept = seen.places >= 2000
    return Replay(seen.texts - 2000, seen.places[kept] - 2000, seen.similarities[kept], seen.cosines[kept])


def keys(stream: Stream, model: LoadedModel) -> Iterator[tuple[str, Callable[[], Signer], list[Query]]]:
    table = np.asarray(model.weights["embeddings.token.weight"])
    dims = stream.rows.shape[1]
    yield "static", partial(StaticSigner, table, dims), stream.queries
    yield "minhash", MinHashSigner, stream.queries
    for layers in LAYERS:
        rows = Encoder(model, layers).rows(stream.queries)
        # The offset that all rows of an inner layer share says nothing.
        rows -= rows[:2000].mean(axis=0)
        signed = [Query(q.text, q.ids, q.space, row) for q, row in zip(stream.queries, rows, strict=True)]
        yield f"{layers} layers", partial(GivenSigner, rows.shape[1]), signed


def promises(found: Sequence[Stream], model: LoadedModel, report: Report) -> str:
    """The default key and guards, each data set in ``ORDERS`` orders; every promise on the same replays."""
    weights = np.asarray(model.weights["embeddings.token.weight"])
    outcomes: dict[tuple[float, float], dict[str, list[Outcome]]] = {one: {} for one in PROMISES}
    for stream in found:
        for seed in range(ORDERS):
            shuffled = stream.order(seed)
            seen = replay(
                shuffled.queries,
                shuffled.rows,
                NearOptions(),
                StaticSigner(weights, stream.rows.shape[1], fit_after=1000),
            )
            for (cosine, error), by_name in outcomes.items():
                by_name.setdefault(stream.name, []).append(judge(seen, cosine, Promise(max_error=error)))
        print(f"{stream.name}: {ORDERS} orders replayed", flush=True)
    lines = []
    for (cosine, error), by_name in outcomes.items():
        runs = [one for several in by_name.values() for one in several]
        kept = sum(one.error <= error for one in runs)
        report.figures.append(
            at_least(f"promise kept, {cosine} at {error:.0%}, of {len(runs)} splits", 0.95 * len(runs), kept, "", 0)
        )
        report.checks.append(Check(f"promise kept, {cosine} at {error:.0%}", kept / len(runs), 0.95))
        for name, several in by_name.items():
            lines.append(_promise_line(name, cosine, error, several))
    return table(("data set", "cosine", "error", "kept", "serve", "share served", "wrong", "could"), lines)


def _promise_line(name: str, cosine: float, error: float, several: list[Outcome]) -> tuple[str, ...]:
    texts, served = sum(one.texts for one in several), sum(one.served for one in several)
    wrong = sum(one.wrong for one in several) / served if served else 0.0
    return (
        name,
        f"{cosine}",
        f"{error:.0%}",
        f"{sum(one.error <= error for one in several)} of {len(several)}",
        f"{sum(one.served > 0 for one in several)}",
        f"{served / texts:.2%}",
        f"{wrong:.2%}",
        f"{sum(one.could for one in several) / texts:.2%}",
    )


def cost(found: Sequence[Stream], model: LoadedModel, encoder: Encoder, report: Report) -> None:
    """A look-up, from text and ids to the candidate, beside a forward pass of one text."""
    queries = [query for stream in found for query in stream.queries]
    rows = np.concatenate([stream.rows for stream in found])
    signer = StaticSigner(np.asarray(model.weights["embeddings.token.weight"]), rows.shape[1], fit_after=1000)
    index = near_index(signer.dims)
    options = NearOptions(capacity=1_000_000)
    tier = NearDuplicateTier(options, signer, index, lambda key: rows[int.from_bytes(key, "big")])
    order = np.random.default_rng(0).permutation(len(queries)).tolist()
    for place in order[2000:]:
        tier.learn(queries[place], tier.look_up(queries[place]), place.to_bytes(16, "big"), rows[place])
    looks, passes = [], []
    for place in order[:2000]:
        started_s = time.perf_counter()
        tier.look_up(queries[place])
        looks.append(time.perf_counter() - started_s)
    for place in order[:500]:
        batch = batch_of([queries[place].ids])
        started_s = time.perf_counter()
        encoder.run_one(batch)
        passes.append(time.perf_counter() - started_s)
    look_s, pass_s = float(np.median(looks)), float(np.median(passes))
    report.figures += [
        at_most("look-up, share of a forward pass", 2.0, 100 * look_s / pass_s, "%"),
        shown(f"look-up among {len(tier):,} anchors, p50", 1e6 * look_s, "us", 0),
        shown("look-up, p99", 1e6 * float(np.quantile(looks, 0.99)), "us", 0),
        shown("forward pass of one text, p50", 1e3 * pass_s, "ms"),
        shown("memory of an anchor", tier.statistics()["bytes"] / len(tier), "bytes", 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of data sets (default: $TANDEM_DATA, else ../shared/data)")
    parser.add_argument("--rows", type=Path, help="folder of rows that are computed already")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--set", nargs="*", default=list(NAMES), metavar="NAME")
    parser.add_argument("--part", nargs="*", default=["race", "promise", "cost"])
    parser.add_argument("--texts", type=int, default=8000, help="of each data set")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for the report as JSON")
    args = parser.parse_args()
    data = data_folder(args.data)
    if data is None:
        parser.error("no data folder; name it with --data")
    report = Report("Near duplicates", conditions({"texts": f"up to {args.texts} of each of {', '.join(args.set)}"}))
    neighbours = Neighbours()
    model = load_model(find_model(args.model, SourceOptions()))
    encoder = Encoder(model)
    found = list(streams(args, data, model, encoder))
    for name, part in (("race", race), ("promise", lambda found, model: promises(found, model, report))):
        if name in args.part:
            report.details[name] = part(found, model)
            print(f"\n{report.details[name]}\n", flush=True)
    if "cost" in args.part:
        cost(found, model, encoder, report)
    report.busy_by_others = neighbours.share()
    print("\n" + report.text())
    if args.out:
        report.write(args.out, "near-duplicates")
    return 0 if report.right else 1


if __name__ == "__main__":
    raise SystemExit(main())
