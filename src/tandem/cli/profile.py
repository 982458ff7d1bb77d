"""``tandem profile [MODEL]``: what this machine's CPU costs, and the server on it, for ``tandem simulate``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.models.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from tandem.bench.conditions import Conditions
    from tandem.config import Settings
    from tandem.models.loaded import LoadedModel
    from tandem.simulation.measure import Measured
    from tandem.simulation.profile import DeviceProfile, HostProfile


# Longer than a server at a moderate load leaves a stream alone.
_REST_S = 0.003


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL", help="a folder, a Hugging Face id or a short name")
    add("--out", type=Path, required=True, metavar="FILE", help="the profile, a file that ends in .json")
    add("--name", default="cpu", help="of the profile (default %(default)s)")
    add("--label", default="", help="what the profile calls the model (default: its name)")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="tier (default %(default)s)")
    add("--threads", type=int, default=0, help="for inference; 0 takes what there is (default)")
    add("--batches", type=int, default=240, help="different batches that are timed (default %(default)s)")
    add("--seconds", type=float, default=5.0, help="length of each load on the server (default %(default)s)")
    add("--no-host", action="store_true", help="do not measure the server, only the device")
    add("--data", help="folder of texts (default: $TANDEM_DATA, else ../shared/data, else generated texts)")
    add("--seed", type=int, default=0, help="of every random choice (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure and write the profile. Raises ConfigError, ModelError, BackendFailed, JobError."""
    from tandem.bench.conditions import Neighbours, conditions
    from tandem.config import Settings, source_options
    from tandem.errors import ConfigError
    from tandem.models.loaded import load_model
    from tandem.models.resolve import find_model
    from tandem.simulation.profile import encode

    if args.out.suffix != ".json":
        raise ConfigError(f"--out must end in .json, got {args.out}")
    settings = Settings(model=args.model, precision=args.precision, threads=args.threads)
    model = load_model(find_model(settings.model, source_options(settings)))
    before = conditions({"batches": str(args.batches), "load": f"{args.seconds:g} s each", "seed": str(args.seed)})
    neighbours = Neighbours()
    profile = _device(args, settings, model, before)
    if not args.no_host:
        import msgspec

        from tandem.bench.texts import data_folder
        from tandem.cli.profile_host import measure_host

        with tempfile.TemporaryDirectory() as work:
            host = measure_host(settings, model, profile, Path(work), args.seconds, data_folder(args.data))
        _tell_host(host)
        profile = msgspec.structs.replace(profile, host=host)
    share = neighbours.share()
    import msgspec

    profile = msgspec.structs.replace(profile, conditions=profile.conditions | {"busy by others": f"{share:.0%}"})
    args.out.write_bytes(encode(profile))
    print(f"others used {share:.0%} of the cores meanwhile")
    print(f"wrote {args.out}", file=sys.stderr)
    return 0


def _device(args: argparse.Namespace, settings: Settings, model: LoadedModel, before: Conditions) -> DeviceProfile:
    from tandem.build import limits_of
    from tandem.fleet import build_backend
    from tandem.simulation.measure import Meter, measure
    from tandem.simulation.profile import DeviceProfile

    backend = build_backend(settings, model)
    try:
        limits = limits_of(settings, model, backend.packing)
        print(f"measuring {backend.name} {backend.tier}, {backend.streams} streams", file=sys.stderr, flush=True)
        token_id = min(1000, model.description.vocab_size - 1)
        meter = Meter(time.process_time, partial(time.sleep, _REST_S))
        found = measure(backend, limits, meter, count=args.batches, seed=args.seed, token_id=token_id)
    finally:
        backend.close()
    _tell_device(found)
    return DeviceProfile(
        name=args.name,
        device=f"{before.cores} cores of {before.cpu}, {backend.name} {backend.tier}",
        model=args.label or model.folder.name.rpartition("/")[2],
        measured=True,
        source=f"Measured by tandem profile: {found.batches} batches, median error {found.fitted.error:.1%}.",
        cost=found.fitted.cost,
        cold_s=found.fitted.cold_s,
        residuals=found.fitted.residuals,
        slots=backend.streams,
        speeds=found.speeds,
        packing=backend.packing,
        max_batch_tokens=limits.max_tokens,
        max_width=limits.max_width,
        cores=before.cores,
        conditions={"lines": "; ".join(before.lines()), "busy before": f"{before.busy_before:.0%}"},
    )


def _tell_device(found: Measured) -> None:
    cost, fitted = found.fitted.cost, found.fitted
    print(
        f"a batch          {1e3 * cost.fixed_s:.3f} ms; {1e3 * fitted.cold_s:.3f} more in another shape or after a rest"
    )
    print(f"a padded token   {1e6 * cost.token_s:.2f} us; a squared length {1e9 * cost.square_s:.2f} ns")
    print(f"a text           {1e6 * cost.text_s:.1f} us")
    print(f"slots at once    {', '.join(f'{speed:.3f}' for speed in found.speeds)} of the speed of one alone")
    print(f"scatter          median error {fitted.error:.1%}; from {fitted.residuals[1]} to {fitted.residuals[-2]}")


def _tell_host(host: HostProfile) -> None:
    request_us, token_us, batch_us = 1e6 * (host.request_s + host.answer_s), 1e6 * host.token_s, 1e6 * host.batch_s
    print(f"server           {request_us:.0f} us a request, {token_us:.1f} a token, {batch_us:.0f} a batch, CPU time")
    print(
        f"                 {1e6 * host.hand_s:.0f} us a batch between threads; load generator {1e6 * host.client_s:.0f}"
    )
    print(f"                 batches take {host.drag:.3f} times as long beside it")
