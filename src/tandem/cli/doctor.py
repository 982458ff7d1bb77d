"""``tandem doctor [MODEL]``: what this machine has, what would be chosen on it and why, and what is in the way."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tandem.cli import serve
from tandem.config import SETTINGS, load_settings

if TYPE_CHECKING:
    from tandem.cli.checkup import Candidate, Checkup, Machine, ModelFacts

EXIT_CAN_NOT_SERVE = 4
"""As for a service that can not do it now."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The settings of ``tandem serve``, which it judges, and options of its own."""
    serve.configure(parser)
    doctor = parser.add_argument_group("doctor")
    doctor.add_argument("--fresh", action="store_true", help="try the engines anew, whatever earlier starts found")
    doctor.add_argument("--try-all", action="store_true", help="try the engines too that would not be needed")
    doctor.add_argument("--pull", action="store_true", help="fetch the model if it is not on this machine")
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 when it can serve, 4 when not. Raises ConfigError."""
    # Here and not at the top: these bring the inference engines, and `tandem doctor --help` should not wait for them.
    import msgspec

    from tandem.cli.checkup import Examination, examine
    from tandem.clock import SystemClock
    from tandem.models.progress import StreamProgress

    settings = load_settings(args.config, {row.name: getattr(args, row.name) for row in SETTINGS if row.flag})
    progress = StreamProgress(sys.stderr, SystemClock())
    how = Examination(fresh=args.fresh, try_all=args.try_all, pull=progress if args.pull else None, note=progress.note)
    found = examine(settings, how)
    if args.json:
        encoded = msgspec.json.encode({"can_serve": found.can_serve, **msgspec.structs.asdict(found)})
        print(msgspec.json.format(encoded).decode())
    else:
        print("\n".join(report(found)))
    return 0 if found.can_serve else EXIT_CAN_NOT_SERVE


def report(found: Checkup) -> Iterator[str]:
    """For people: one fact a line, then the candidates, then the verdict."""
    yield from _machine(found.machine)
    engines = (f"{name} {number or 'is not installed'}" for name, number in found.engines.items())
    yield _fact("engines", ", ".join(engines))
    store = found.store
    room = f"{_size(store.models_bytes)} in models, {_size(store.free_bytes)} free on its disk"
    yield _fact("store", f"{store.path}: {room}{'' if store.writable else ', not writable'}")
    changed = (f"{name} = {value}" for name, value in found.settings.items())
    yield _fact("settings", "; ".join(changed) or "all as by default")
    yield _fact("address", found.address)
    yield _fact("model", f"{found.model_name}{_model(found.model)}")
    for one in found.caches:
        yield _fact(one.name, one.words)
        if one.advice:
            yield _fact("", f"-> {one.advice}")
    yield ""
    yield from map(_candidate, found.candidates)
    yield ""
    yield "This machine can serve it." if found.can_serve else "This machine can not serve it as it is:"
    yield from (f"  - {problem}" for problem in found.problems)


def _machine(m: Machine) -> Iterator[str]:
    yield f"tandem {m.tandem}, Python {m.python}, {m.os}"
    quota = "no limit" if m.cpu.quota is None else f"a limit of {m.cpu.quota:g} CPUs"
    used = f"{m.threads} threads in {m.streams} streams would compute"
    yield _fact("cpu", f"{m.cpu.model}: {m.cpu.affinity} CPUs by affinity, {quota} by cgroup; {used}")
    native = "bf16 is native" if m.native_bf16 else "bf16 is not native, so fp32 serves"
    yield _fact("sets", f"{' '.join(m.cpu.flags) or 'none of those that matter'}; {native}")
    limit = "no limit" if m.memory_limit_bytes is None else f"a limit of {_size(m.memory_limit_bytes)}"
    yield _fact("memory", f"{'not known' if m.memory_bytes is None else _size(m.memory_bytes)}, {limit} by cgroup")
    yield _fact("gpu", f"{'; '.join(m.gpus)}" if m.gpus else "none seen; none is needed")


def _model(model: ModelFacts | None) -> str:
    if model is None:
        return ": not to be had, see below"
    weights = "own graph" if model.weights_bytes is None else f"{_size(model.weights_bytes)} of weights in fp32"
    what = f"{model.family}, {model.dims} dimensions, {model.max_tokens} tokens, {weights}"
    return f": {what}; from {model.source}, {model.path}"


def _candidate(one: Candidate) -> str:
    kept = " (found by an earlier start; --fresh tries again)" if one.kept else ""
    return f"{one.device:<7} {one.backend:<12} {one.tier:<5} {one.state:<10} {one.why}{kept}"


def _fact(name: str, text: str) -> str:
    return f"{name:<9} {text}"


def _size(size_bytes: float) -> str:
    from tandem.models.progress import readable

    return readable(size_bytes)
