"""``tandem bench gpu``: the options of the one benchmark that needs no model, no data and no peers set up before."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

WRONG = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its options; the defaults are those of ``GpuBenchOptions``."""
    add = parser.add_argument
    add("--device", default="cuda:0", help="cuda:0, cuda:1, ..., or cpu to see that it runs (default %(default)s)")
    add("--model", default="", help="a folder, a Hugging Face id or a short name (default: random weights)")
    add("--precision", choices=("fp32", "bf16"), default="bf16", help="Tandem's tier (default %(default)s)")
    add("--layers", type=int, default=12, help="of the random encoder (default %(default)s)")
    add("--hidden", type=int, default=768, help="its width (default %(default)s)")
    add("--heads", type=int, default=12, help="its attention heads (default %(default)s)")
    add("--batch-tokens", type=int, default=16384, help="tokens of a full batch (default %(default)s)")
    add("--streams", type=int, default=2, help="batches under way at once (default %(default)s)")
    add("--rounds", type=int, default=5, help="counted rounds (default %(default)s)")
    add("--seed", type=int, default=0, help="of every random choice (default %(default)s)")
    add("--variants", default="no-graphs,fused-gelu,compile", help='comma-separated, or "none" (default %(default)s)')
    add("--no-peer", dest="peer", action="store_false", help="leave transformers out")
    add("--quick", action="store_true", help="few and small batches, to see that it runs; the figures mean nothing")
    add("--out", type=Path, default=Path("bench/results"), help="folder for JSON and pictures (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run it, print the report and write its files; 1 when a vector was wrong."""
    import msgspec

    from tandem.bench.gpu import gpu
    from tandem.bench.gpu_options import VARIANTS, GpuBenchOptions
    from tandem.errors import ConfigError

    variants = () if args.variants == "none" else tuple(args.variants.split(","))
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        raise ConfigError(f"unknown variant {', '.join(unknown)}; known are: {', '.join(VARIANTS)}")
    given = {name: value for name, value in vars(args).items() if name in GpuBenchOptions.__struct_fields__}
    options = msgspec.convert(given | {"variants": variants}, GpuBenchOptions)
    report = gpu(options, lambda part: print(f"running: {part}", file=sys.stderr, flush=True))
    print(report.text())
    for path in report.write(options.out, "gpu"):
        print(f"wrote {path}", file=sys.stderr)
    return 0 if report.right else WRONG
