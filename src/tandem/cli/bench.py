"""``tandem bench offline | serve | memory | cache | gpu | scaling``: measure this machine, with peers beside."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tandem.cli import bench_cache, bench_gpu, bench_scaling
from tandem.models.catalog import DEFAULT_MODEL

PEERS = ("sentence-transformers", "fastembed", "infinity")
WRONG = 1
"""The exit code when a vector was wrong or a request failed. A figure that is not reached is no failure."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks and their options."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="<benchmark>")
    offline = kinds.add_parser("offline", help="the library against its own backend and in-process peers")
    serve = kinds.add_parser("serve", help="the server over HTTP, against peers and its backend's ceiling")
    memory = kinds.add_parser("memory", help="the memory pool against other ways of allocating, on recorded traffic")
    for each in (offline, serve, memory):
        _add_common(each)
    add = serve.add_argument
    add(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="bulk, singles, one, quality, start, memory, workers or kill",
    )
    add("--connections", type=int, default=8, help="connections of the bulk and memory loads (default %(default)s)")
    add("--seconds", type=float, default=10.0, help="length of each load on single questions (default %(default)s)")
    add("--kills", type=int, default=20, help="how often a worker is killed (default %(default)s)")
    add("--minutes", type=float, default=10.0, help="length of the memory run (default %(default)s)")
    bench_cache.configure(
        kinds.add_parser("cache", help="each cache tier alone and together, hits over HTTP, real traffic")
    )
    bench_gpu.configure(kinds.add_parser("gpu", help="the GPU backend against the device's own peak and transformers"))
    bench_scaling.configure(kinds.add_parser("scaling", help="1, 2 and 4 devices: real ones, or simulated"))


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, print the report and write its files; 1 when a result was wrong."""
    if args.kind == "cache":
        return bench_cache.run(args)
    if args.kind == "gpu":
        return bench_gpu.run(args)
    if args.kind == "scaling":
        return bench_scaling.run(args)
    import msgspec

    from tandem.bench.options import BenchOptions
    from tandem.bench.texts import data_folder

    given = {name: value for name, value in vars(args).items() if name in BenchOptions.__struct_fields__}
    given |= {"data": data_folder(args.data), "peers": _peers(args.peers)}
    options = msgspec.convert(given, BenchOptions)
    if args.kind == "offline":
        from tandem.bench.offline import offline

        report = offline(options)
    elif args.kind == "memory":
        from tandem.bench.memory import memory

        report = memory(options)
    else:
        from tandem.bench.serve import serve

        report = serve(options, lambda part: print(f"running: {part}", file=sys.stderr, flush=True))
    print(report.text())
    for path in report.write(options.out, args.kind):
        print(f"wrote {path}", file=sys.stderr)
    return 0 if report.right else WRONG


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="a folder, a Hugging Face id or a short name (default %(default)s)")
    add("--precision", choices=("fp32", "bf16"), default="bf16", help="Tandem's tier (default %(default)s)")
    add("--threads", type=int, default=2, help="threads of every engine (default %(default)s)")
    add("--data", help="folder of texts (default: $TANDEM_DATA, else ../shared/data, else generated texts)")
    add("--texts", type=int, help="use this many texts of the mix only")
    add("--rounds", type=int, default=5, help="counted rounds (default %(default)s)")
    add("--peers", default=",".join(PEERS), help='comma-separated, or "none" (default %(default)s)')
    add("--peers-folder", type=Path, default=Path("bench/peers"), help="where setup.py put them (default %(default)s)")
    add("--seed", type=int, default=0, help="of every random choice (default %(default)s)")
    add("--out", type=Path, default=Path("bench/results"), help="folder for JSON and pictures (default %(default)s)")


def _peers(text: str) -> tuple[str, ...]:
    from tandem.errors import ConfigError

    names = () if text == "none" else tuple(text.split(","))
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        raise ConfigError(f"unknown peer {', '.join(unknown)}; known are: {', '.join(PEERS)}")
    return names
