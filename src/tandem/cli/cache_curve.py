"""``tandem cache curve FILE``: what the near-duplicate tier could serve on a file of texts, and how near that would be.

Every text is computed, so that the truth is known, and looked up among those before it in the file, as traffic would
be. Two tables: the true cosines behind each share that could be served; and, for bounds and shares of error, what the
tier would have learned to serve from the first half of the file and what came of it in the second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.errors import ConfigError, JobError

if TYPE_CHECKING:
    from tandem.caching.near_curve import Outcome, Replay
    from tandem.caching.near_duplicate import Query
    from tandem.caching.signatures import Signer
    from tandem.models.loaded import LoadedModel
    from tandem.types import Rows
    from tandem.verification import Promise

KEYS = ("static", "minhash")
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
COSINES = (0.98, 0.95, 0.9, 0.85, 0.8)
# Fewer can not prove anything: half of them are learned from.
LEAST = 200
_LEARN_MOST = 2000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("file", type=Path, help="one text a line, or JSON lines: strings, or objects with a field named text")
    add("--model", help="a folder, a Hugging Face id or a short name")
    add("--device", help="devices that compute, as cpu, cuda:0 or cpu+cuda:0")
    add("--column", default="text", help="field of JSON lines that holds the text (default %(default)s)")
    add("--key", choices=KEYS, default="static", help="what neighbours are found by (default %(default)s)")
    add("--guards", choices=("usual", "strict"), default="usual", help="how careful (default %(default)s)")
    add("--cosine", default="", metavar="X,Y", help=f"bounds (default {','.join(map(str, COSINES))})")
    add("--max-error", default="0.01,0.05", metavar="X,Y", help="shares of error allowed (default %(default)s)")
    add("--confidence", type=float, default=0.95, help="how sure the promise is (default %(default)s)")
    add("--limit", type=int, help="only the first so many texts")
    add("--out", type=Path, help="folder for curve.json and curve.svg (default: none are written)")


def run(args: argparse.Namespace) -> int:
    """Compute, look up, print. Raises ConfigError for options and JobError for files that will not do."""
    from tandem.caching.guards import Strictness
    from tandem.caching.near_curve import judge, replay
    from tandem.caching.near_duplicate import NearOptions
    from tandem.verification import Promise

    cosines = _numbers("--cosine", args.cosine) or COSINES
    promises = [Promise(error, args.confidence) for error in _numbers("--max-error", args.max_error)]
    options = [NearOptions(cosine=cosine, strictness=Strictness(args.guards)) for cosine in cosines]
    texts = list(read_texts(args.file, args.column, args.limit))
    queries, rows, signer = computed(texts, args)
    if len(queries) < LEAST:
        raise JobError(f"{args.file} has {len(queries)} different texts; a curve takes {LEAST} at the least")
    seen = replay(queries, rows, options[0], signer)
    outcomes = [(one.cosine, promise, judge(seen, one.cosine, promise)) for one in options for promise in promises]
    for line in (*head(args, len(texts), seen), *curve_lines(seen), "", *outcome_lines(outcomes)):
        print(line)
    for path in write(args.out, args, seen, outcomes) if args.out else ():
        print(f"wrote {path}", file=sys.stderr)
    return 0


def read_texts(path: Path, column: str, limit: int | None) -> Iterator[str]:
    """The texts of a file that are not empty, ``limit`` at most. Raises JobError for a file or line that is none."""
    import msgspec

    count = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text and path.suffix in (".jsonl", ".ndjson"):
                    found = msgspec.json.decode(text)
                    found = found.get(column) if isinstance(found, dict) else found
                    if not isinstance(found, str):
                        raise JobError(f"{path}, line {number}: no text; name the field with --column")
                    text = found.strip()
                if text:
                    yield text
                    count += 1
                if limit is not None and count >= limit:
                    return
    except OSError as error:
        raise JobError(f"{path} can not be read: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{path} can not be read as text, or as lines of JSON: {error}") from error


def computed(texts: Sequence[str], args: argparse.Namespace) -> tuple[list[Query], Rows, Signer]:
    """The texts that the token key tells apart, in order, their rows float32 [n, d], and what signs them."""
    from tandem.caching.near_duplicate import Query
    from tandem.config import load_settings, source_options
    from tandem.embedder import Embedder
    from tandem.models.loaded import load_model
    from tandem.models.resolve import find_model

    settings = load_settings(overrides={"model": args.model, "device": args.device})
    model = load_model(find_model(settings.model, source_options(settings)))
    different: dict[tuple[int, ...], Query] = {}
    for text, ids in zip(texts, model.tokenizer.encode(list(texts), truncate=True).ids, strict=True):
        different.setdefault(tuple(ids), Query(text, ids))
    queries = list(different.values())
    with Embedder(settings=settings) as embedder:
        rows = embedder.embed([query.text or "" for query in queries], truncate=True)
    return queries, rows, signer_of(args.key, model, rows.shape[1], len(queries))


def signer_of(key: str, model: LoadedModel, row_dims: int, texts: int) -> Signer:
    """Raises ConfigError for a static key where the model has no token table."""
    import numpy as np

    from tandem.caching.signatures import MinHashSigner, StaticSigner

    if key == "minhash":
        return MinHashSigner()
    name = "embeddings.token.weight"
    if name not in model.weights:
        raise ConfigError("this model is served from its own graph, so its token table is not known: use --key minhash")
    return StaticSigner(np.asarray(model.weights[name]), row_dims, fit_after=min(_LEARN_MOST, texts // 4))


def head(args: argparse.Namespace, texts: int, seen: Replay) -> Iterator[str]:
    """What was looked up by what."""
    yield "# tandem cache curve"
    yield f"texts     {texts:,} in {args.file}, {seen.texts:,} that the exact caches tell apart"
    yield f"key       {args.key}, guards {args.guards}"
    yield f"found     {len(seen.places):,} had an earlier text that no guard refused"
    yield ""


def curve_lines(seen: Replay) -> Iterator[str]:
    """True cosines by share served."""
    from tandem.caching.near_curve import curve

    yield "served   mean cosine   95 % are over   99 % are over"
    for share, mean, low, least in curve(seen, SHARES):
        yield f"{share:6.1%}   {mean:11.3f}   {low:13.3f}   {least:13.3f}"


def outcome_lines(outcomes: Sequence[tuple[float, Promise, Outcome]]) -> Iterator[str]:
    """What a promise would have come to."""
    yield "cosine   error allowed   served of the 2nd half   wrong   could have been"
    for cosine, promise, found in outcomes:
        wrong = f"{found.error:.1%}" if found.served else "-"
        could = found.could / found.texts if found.texts else 0.0
        yield f"{cosine:6.3f}   {promise.max_error:13.1%}   {found.share:22.2%}   {wrong:>5}   {could:15.2%}"


def write(
    folder: Path, args: argparse.Namespace, seen: Replay, outcomes: Sequence[tuple[float, Promise, Outcome]]
) -> list[Path]:
    """``curve.json`` and ``curve.svg``."""
    import msgspec
    import numpy as np

    from tandem.caching.near_curve import curve
    from tandem.simulation.chart import lines

    folder.mkdir(parents=True, exist_ok=True)
    points = curve(seen, np.linspace(0.002, 1, 200).tolist())
    data, picture = folder / "curve.json", folder / "curve.svg"
    content = {
        "key": args.key,
        "guards": args.guards,
        "texts": seen.texts,
        "found": len(seen.places),
        "curve": [dict(zip(("served", "mean", "q05", "q01"), point, strict=True)) for point in points],
        "promises": [{"cosine": cosine, "promise": promise, "found": found} for cosine, promise, found in outcomes],
    }
    data.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    named = [
        (name, [(100 * point[0], point[place]) for point in points])
        for place, name in ((1, "mean"), (2, "95 % are over"), (3, "99 % are over"))
    ]
    picture.write_text(lines("Near duplicates", "% of texts served", "true cosine", named), encoding="utf-8")
    return [data, picture]


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"{flag} takes numbers with commas between them, got {text!r}") from error
