"""``tandem embed "text"`` prints vectors; ``tandem embed in.csv -o out.parquet`` embeds a file, crash or no crash."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tandem.clock import SystemClock
from tandem.config import Settings, load_settings
from tandem.errors import ConfigError, JobError
from tandem.types import Rows

if TYPE_CHECKING:
    from tandem.bulk.base import Source
    from tandem.bulk.options import JobOptions, Summary
    from tandem.bulk.progress import Progress
    from tandem.embedder import Embedder

_READS = {"txt": "txt", "jsonl": "jsonl", "ndjson": "jsonl", "csv": "csv", "parquet": "parquet"}
_WRITES = {"parquet": "parquet", "npy": "npy", "jsonl": "jsonl", "ndjson": "jsonl"}
_STREAM = "-"
# Memory for rows that a file may ask for again.
_CACHE_BYTES = 64 << 20

_EPILOG = """\
examples:
  tandem embed "how warm is the sea?"
  tandem embed questions.csv --column question -o questions.parquet
  zcat texts.jsonl.gz | tandem embed - --input-format jsonl -o vectors.npy
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("inputs", nargs="+", metavar="TEXT|FILE", help="texts, or one file; - is standard input")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"where a file's vectors go: {_dotted(_WRITES)}; - for lines of JSON"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", help="a folder, a Hugging Face id or a short name")
    model.add_argument("--device", help="devices that compute, as cpu, cuda:0 or cpu+cuda:0; auto takes all")
    model.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="precision tier")
    model.add_argument("--prompt-name", metavar="NAME", help="put this prompt of the model before each text")
    model.add_argument("--dimensions", type=int, metavar="N", help="keep the first N of each vector")
    model.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="unit length, whatever the model's files say"
    )
    model.add_argument("--no-truncate", action="store_true", help="refuse texts that are too long instead of cutting")
    file = parser.add_argument_group("file")
    file.add_argument(
        "--input-format", choices=sorted(set(_READS.values())), help="for standard input and unusual file names"
    )
    file.add_argument("--column", metavar="NAME", help='column of the texts ("text", else the only string column)')
    file.add_argument(
        "--output-column", metavar="NAME", default="embedding", help="column of the vectors (%(default)s)"
    )
    file.add_argument(
        "--on-error",
        choices=("fail", "skip", "null"),
        default="fail",
        help="rows that can not be embedded: stop before the work, leave them out, or keep them without a vector",
    )
    file.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    file.add_argument("--restart", action="store_true", help="throw away what an earlier run left unfinished")
    file.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Print vectors or run the job; raises errors of the tree."""
    settings = load_settings(overrides={"model": args.model, "precision": args.precision, "device": args.device})
    if args.output is None:
        return _print_vectors(args, settings)
    return _embed_file(args, settings)


def _print_vectors(args: argparse.Namespace, settings: Settings) -> int:
    from tandem.bulk.jsonl import vector_texts

    for word in args.inputs:
        if word == _STREAM or _exists(word):
            raise ConfigError(f"{word} is a file: say with -o where its vectors go, -o {_STREAM} for lines of JSON")
        if _looks_like_a_file(word):
            raise JobError(f"there is no file {word}; {_as_a_text(word)}")
    with _embedder(settings) as embedder:
        for line in vector_texts(_embed_with(args, embedder)(list(args.inputs))):
            print(line.decode("ascii"))
    return 0


def _embed_file(args: argparse.Namespace, settings: Settings) -> int:
    # A file's doubles are near each other or everywhere; a file of terabytes shall not fill the memory for the rest.
    settings = msgspec.structs.replace(settings, cache_bytes=min(settings.cache_bytes, _CACHE_BYTES))
    # Here and not at the top: these bring numpy and Arrow, and `tandem embed --help` should not wait for them.
    from tandem.bulk.job import check_job, run_job
    from tandem.bulk.pipeline import Embedding

    with ExitStack() as stack:
        options = _job_options(args, stack)
        check_job(options)
        embedder = stack.enter_context(_embedder(settings))
        embed = _embed_with(args, embedder)
        # One text first: a wrong prompt name or number of dimensions is no row's fault.
        dimensions = embed(["tandem"]).shape[1]
        described = _vector_settings(args, embedder, dimensions)
        progress = _progress(quiet=args.quiet)
        stack.callback(progress.close)
        clock = SystemClock()
        started_s = clock.now()
        summary = run_job(options, Embedding(embed, dimensions, described), progress)
        progress.note(_told(options, summary, clock.now() - started_s))
    return 0


def _embedder(settings: Settings) -> Embedder:
    from tandem.embedder import Embedder

    return Embedder(settings=settings)


def _embed_with(args: argparse.Namespace, embedder: Embedder) -> Callable[[list[str]], Rows]:
    def embed(texts: list[str]) -> Rows:
        return embedder.embed(
            texts,
            prompt_name=args.prompt_name,
            normalize=args.normalize,
            dimensions=args.dimensions,
            truncate=False if args.no_truncate else None,
        )

    return embed


def _vector_settings(args: argparse.Namespace, embedder: Embedder, dimensions: int) -> dict[str, str]:
    """All that decides a vector, as people know it; a job goes on only where these are as they were."""
    return {
        "model": embedder.fingerprint,
        "precision": embedder.model.tier.value,
        "prompt": args.prompt_name or "the model's own",
        "dimensions": str(dimensions),
        "normalize": {None: "as the model's files say", True: "yes", False: "no"}[args.normalize],
        "truncate": "no" if args.no_truncate else "yes",
    }


def _job_options(args: argparse.Namespace, stack: ExitStack) -> JobOptions:
    from tandem.bulk.options import JobOptions, OnError

    if len(args.inputs) > 1:
        raise ConfigError(f"-o takes one input file, got {len(args.inputs)} inputs")
    source = _source(args.inputs[0], stack)
    to_stdout = args.output == _STREAM
    return JobOptions(
        source=source,
        input_format=args.input_format or _format(args.inputs[0], _READS, "--input-format"),
        # Links are followed, so that the file is replaced and not the link to it.
        output=None if to_stdout else Path(args.output).resolve(),
        output_format="jsonl" if to_stdout else _format(args.output, _WRITES, None),
        stdout=sys.stdout.buffer if to_stdout else None,
        column=args.column,
        output_column=args.output_column,
        on_error=OnError(args.on_error),
        overwrite=args.overwrite,
        restart=args.restart,
    )


def _source(word: str, stack: ExitStack) -> Source:
    from tandem.bulk.base import Source

    if word == _STREAM:
        return Source("standard input", stream=sys.stdin.buffer)
    path = Path(word)
    if path.is_file():
        return Source(word, path=path)
    if path.is_dir():
        raise JobError(f"{word} is a folder; name a file")
    if not _exists(word):
        raise JobError(f"there is no file {word}")
    # A named pipe, or the shell's <(...).
    return Source(word, stream=stack.enter_context(path.open("rb")))


def _format(name: str, formats: dict[str, str], flag: str | None) -> str:
    extension = Path(name).suffix.removeprefix(".").lower()
    if extension not in formats:
        if flag and extension in ("gz", "bz2", "xz", "zst"):
            raise ConfigError(
                f"{name} is compressed; send it unpacked through a pipe: zcat {name} | tandem embed - ..."
            )
        otherwise = f", or say what it is with {flag}" if flag else ""
        raise ConfigError(f"the format of {name} is not known from its name: use {_dotted(formats)}{otherwise}")
    return formats[extension]


def _exists(word: str) -> bool:
    """Whether ``word`` names a file; a folder's name is as good a text as any other."""
    try:
        return Path(word).exists() and not Path(word).is_dir()
    except (OSError, ValueError):
        return False  # Too long for a name, or with a NUL: a text.


def _looks_like_a_file(word: str) -> bool:
    return " " not in word and Path(word).suffix.removeprefix(".").lower() in {*_READS, *_WRITES}


def _as_a_text(word: str) -> str:
    return f"to embed these words themselves: printf %s {word} | tandem embed - --input-format txt -o {_STREAM}"


def _dotted(formats: dict[str, str]) -> str:
    return ", ".join(f".{name}" for name in formats)


def _progress(*, quiet: bool) -> Progress:
    from tandem.bulk.progress import Bar, Lines, Quiet

    if quiet:
        return Quiet(sys.stderr)
    # A terminal without a size, as containers have, shows no bar.
    screen = sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    return Bar(sys.stderr) if screen else Lines(sys.stderr, SystemClock())


def _told(options: JobOptions, summary: Summary, seconds: float) -> str:
    from tandem.bulk.progress import duration

    done = summary.records - summary.resumed_at
    where = options.output.name if options.output is not None else "standard output"
    rate = f"{done / seconds:,.0f} texts/s" if seconds > 0 else ""
    without = f", {summary.without:,} of them without a vector" if summary.without else ""
    if summary.without and options.on_error == "skip":
        without = f", {summary.without:,} of them left out"
    return f"{where}: {summary.records:,} texts{without}, {duration(seconds)}, {rate}"
