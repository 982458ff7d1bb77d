"""The near-duplicate tier on real texts: three keys raced, the promise on streams it never saw, and what it costs.

Run from the repository: ``python -m bench.near_duplicates --data ../shared/data``; ``--rows FOLDER`` holds rows that
are computed already, NAME.npy (float32 [n, d]) beside NAME.json (the n texts). ``--part`` picks some
of race, promise, cost and index.

**race**: for each data set and key, the share of texts that the best threshold in hindsight could serve at a share of
error. Keys: ``static``, ``minhash``, and the first layers of the same model as the smaller model before it: six layers
are the model, so ``3 layers`` stands for a key at half its price. With the guards as they are by default, and strict.
**promise**: streams in 20 shuffled orders of each data set. The threshold is learned on the first half; kept means that
of what is served of the second half no larger share is under the bound than was allowed.
**index**: what holds the signatures (``bench/near_indexes.py``).
**cost**: one look-up with all data sets' texts as anchors, against one forward pass of one text.

It could mislead in that shuffled data sets have no time of day: real traffic drifts, which is the alarm's business.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench.near_indexes import indexes
from bench.near_streams import Choice, Encoder, Stream, batch_of, streams
from tandem.bench.conditions import Neighbours, conditions
from tandem.bench.report import Check, Report, at_least, at_most, shown, table
from tandem.bench.texts import data_folder
from tandem.caching.guards import Strictness
from tandem.caching.near_curve import Outcome, Replay, judge, most, replay
from tandem.caching.near_duplicate import NOT_LOOKED, NearDuplicateTier, NearOptions, Query
from tandem.caching.signatures import GivenSigner, MinHashSigner, Signer, StaticSigner
from tandem.models.loaded import LoadedModel, load_model
from tandem.models.resolve import find_model
from tandem.models.sources import SourceOptions
from tandem.types import Rows
from tandem.verification import GuardOptions, LearnerOptions, Promise

NAMES = ("banking77", "clinc150", "qqp", "search-queries", "scifact")
BOUNDS = (0.95, 0.9, 0.8)
ERRORS = (0.01, 0.05, 0.1)
LAYERS = (1, 3, 5)
PROMISES = ((0.95, 0.01), (0.95, 0.05), (0.9, 0.05), (0.85, 0.05), (0.8, 0.05), (0.8, 0.01))
ORDERS = 20
LEARNS, SERVES, GIVEN_UP = "while it learns", "while it serves", "when it has given up"
STATES = {
    LEARNS: NearOptions(),
    SERVES: NearOptions(cosine=0.8, promise=Promise(max_error=0.2)),
    GIVEN_UP: NearOptions(cosine=0.999, audit=GuardOptions(learner=LearnerOptions(window=1000))),
}


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
        signed = [Query(q.text, q.ids, q.space, signature=row) for q, row in zip(stream.queries, rows, strict=True)]
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
    """A look-up, from text and ids to the candidate, beside a forward pass of one text, in the three states of a tier:
    while every look-up is an audit, while some are served, and when labels have shown that nothing can be."""
    queries = [query for stream in found for query in stream.queries]
    rows = np.concatenate([stream.rows for stream in found])
    order = np.random.default_rng(0).permutation(len(queries)).tolist()
    tiers, keep_s = filled([(place, queries[place]) for place in order[1300:]], rows, model)
    # Each by itself, as within a list of texts; and in turn with forward passes, which leave it caches full of weights.
    hot = {
        state: [timed(partial(tier.look_up, queries[place])) for place in order[:1000]] for state, tier in tiers.items()
    }
    served = tiers[SERVES].statistics()["served"]
    cold: dict[str, list[float]] = {state: [] for state in tiers}
    passes: list[float] = []
    for place in order[1000:1300]:
        for state, tier in tiers.items():
            passes.append(timed(partial(encoder.run_one, batch_of([queries[place].ids]))))
            cold[state].append(timed(partial(tier.look_up, queries[place])))
    served = tiers[SERVES].statistics()["served"] - served
    pass_s, anchors = float(np.median(passes)), len(tiers[LEARNS])
    for state in tiers:
        look_s, cold_s = float(np.median(hot[state])), float(np.median(cold[state]))
        report.figures += [
            at_most(f"look-up, {state}: share of a forward pass", 2.0, 100 * look_s / pass_s, "%", 2),
            shown(f"look-up, {state}, p50", 1e6 * look_s, "us", 0),
            shown(f"look-up, {state}, p99", 1e6 * float(np.quantile(hot[state], 0.99)), "us", 0),
            shown(f"look-up, {state}, p50 between forward passes", 1e6 * cold_s, "us", 0),
        ]
    report.figures += [
        shown("served while it serves", 100 * served / len(cold[SERVES]), "%"),
        shown("forward pass of one text, p50", 1e3 * pass_s, "ms"),
        shown(f"an anchor kept, of {anchors:,}, p50", 1e6 * keep_s, "us", 0),
        shown("memory of an anchor", tiers[LEARNS].statistics()["bytes"] / anchors, "bytes", 0),
    ]


def filled(
    queries: Sequence[tuple[int, Query]], rows: Rows, model: LoadedModel
) -> tuple[dict[str, NearDuplicateTier], float]:
    """A tier in each of the states, with these texts as anchors, and the median of what keeping one took. ``queries``:
    with their places in ``rows``."""
    tiers: dict[str, NearDuplicateTier] = {}
    for state, options in STATES.items():
        signer = StaticSigner(np.asarray(model.weights["embeddings.token.weight"]), rows.shape[1], fit_after=1000)
        tiers[state] = NearDuplicateTier(options, signer, lambda key: rows[int.from_bytes(key, "big")])
    keeps: list[float] = []
    for place, query in queries:
        key, row = place.to_bytes(16, "big"), rows[place]
        for state, tier in tiers.items():
            look = NOT_LOOKED if state == LEARNS else tier.look_up(query)
            if look.serve is None:
                spent_s = timed(partial(tier.learn, query, look, key, row))
                keeps += [spent_s] if state == LEARNS else []
    return tiers, float(np.median(keeps))


def held(found: Sequence[Stream], model: LoadedModel) -> str:
    """Static signatures of all texts, of which three quarters fit."""
    queries = [query for stream in found for query in stream.queries]
    rows = np.concatenate([stream.rows for stream in found])
    order = np.random.default_rng(0).permutation(len(queries)).tolist()
    signer = StaticSigner(np.asarray(model.weights["embeddings.token.weight"]), rows.shape[1], fit_after=1000)
    for place in order[:1000]:
        signer.observe(queries[place].ids, rows[place])
    signatures = np.stack([signer.sign(queries[place].ids) for place in order])
    return indexes(signatures, len(signatures) * 3 // 4)


def timed(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of data sets (default: $TANDEM_DATA, else ../shared/data)")
    parser.add_argument("--rows", type=Path, help="folder of rows that are computed already")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--set", nargs="*", default=list(NAMES), metavar="NAME")
    parser.add_argument("--part", nargs="*", default=["race", "promise", "cost", "index"])
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
    found = list(streams(Choice(tuple(args.set), args.texts, args.seed, args.rows), data, model, encoder))
    for name, part in (("race", race), ("promise", lambda found, model: promises(found, model, report))):
        if name in args.part:
            report.details[name] = part(found, model)
            print(f"\n{report.details[name]}\n", flush=True)
    if "index" in args.part:
        report.details["index"] = held(found, model)
        print(f"\n{report.details['index']}\n", flush=True)
    if "cost" in args.part:
        cost(found, model, encoder, report)
    report.busy_by_others = neighbours.share()
    print("\n" + report.text())
    if args.out:
        report.write(args.out, "near-duplicates")
    return 0 if report.right else 1


if __name__ == "__main__":
    raise SystemExit(main())
