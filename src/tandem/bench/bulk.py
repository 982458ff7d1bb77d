"""Bulk over HTTP: lists of 32 in a closed loop, against infinity over HTTP and against the backend's own ceiling."""

from __future__ import annotations

import re
from contextlib import ExitStack

from tandem.bench.ceiling import Ceiling, cut_batches, waste
from tandem.bench.context import Context, kept_rows
from tandem.bench.load import LoadJob, run_load, write_bodies
from tandem.bench.peers import INFINITY_PACKAGES, versions
from tandem.bench.processes import HOST, Server
from tandem.bench.report import Figure, Report, Series, at_least, at_most, missing, shown
from tandem.bench.stats import interleave, paired_ratio, summarize
from tandem.fleet import build_backend
from tandem.types import Tier

LIST = 32
CEILING = "tandem backend alone"
PEER = "infinity"
AGAINST_PEER = "bulk over HTTP, lists of 32, bf16 tier, against infinity-emb (torch) over HTTP"
AGAINST_CEILING = "bulk over HTTP against the backend's own ceiling"
PADDING = "padding waste of bulk, by the server's own metrics"


class MixLoad:
    """The whole mix through one server, in lists."""

    def __init__(self, context: Context, server: Server) -> None:
        self._context = context
        self.server = server
        name = server.spec.name.replace(" ", "-")
        self.kept = context.folder / f"{name}.answers"
        bodies = context.folder / f"{name}.bodies"
        texts = context.mix.texts
        lists = [texts[start : start + LIST] for start in range(0, len(texts), LIST)]
        write_bodies(bodies, [server.spec.body(part) for part in lists])
        self._job = LoadJob(
            host=HOST,
            port=server.port,
            path=server.spec.path,
            bodies=str(bodies),
            connections=min(context.options.connections, len(lists)),
            requests=len(lists),
            keep=str(self.kept),
        )
        self.server_cpu_s: list[float] = []
        self.client_cpu_s: list[float] = []

    def seconds(self) -> float:
        """One pass: wall seconds from the first request to the last answer."""
        before = self.server.cpu_s()
        result = run_load(self._job)
        self._context.note_errors(self.server.spec.name, result)
        self.server_cpu_s.append(self.server.cpu_s() - before)
        self.client_cpu_s.append(result.client_cpu_s)
        return result.seconds


def bulk(context: Context) -> None:
    """All servers stay up for the whole part; one is asked at a time."""
    report = context.report
    with ExitStack() as stack:
        servers = [stack.enter_context(context.start(spec)) for spec in (context.tandem, *context.infinities())]
        loads = {server.spec.name: MixLoad(context, server) for server in servers}
        own = loads[context.tandem.name]
        ceiling = _Ceiling(context)
        stack.callback(ceiling.close)
        before = _token_counts(own.server)
        runs = {context.tandem.name: own.seconds, CEILING: ceiling.seconds}
        seconds = interleave(runs | {name: load.seconds for name, load in loads.items()}, context.options.rounds)
        after = _token_counts(own.server)
        _check(context, list(loads.values()))
    if len(loads) > 1:
        found = versions(context.options.peers_folder, PEER, INFINITY_PACKAGES)
        settings = {**found, **loads[PEER].server.spec.settings}
        report.notes.append(f"{PEER}: " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    for name, load in loads.items():
        report.details[f"bulk, {name}"] = {
            "server_cpu_s": load.server_cpu_s,
            "client_cpu_s": load.client_cpu_s,
        }
    _report(report, seconds, ceiling.tokens, context.tandem.name)
    real, padded = (b - a for a, b in zip(before, after, strict=True))
    report.figures.append(at_most(PADDING, 5, 100 * (1 - real / max(1, padded)), " %"))
    report.details["padding waste of the ceiling's batches"] = ceiling.waste


class _Ceiling:
    """The same lists as batches, through a backend in this process."""

    def __init__(self, context: Context) -> None:
        backend = build_backend(context.settings, context.model)
        ids = context.model.tokenizer.encode(context.mix.texts, truncate=True).ids
        lists = [ids[start : start + LIST] for start in range(0, len(ids), LIST)]
        callers = context.options.connections
        self._batches = cut_batches(context.settings, context.model, lists, callers, backend)
        self._ceiling = Ceiling(backend)
        self.tokens = sum(map(len, ids))
        self.waste = waste(self._batches)
        self.close = self._ceiling.close

    def seconds(self) -> float:
        return self._ceiling.seconds(self._batches)


def _check(context: Context, loads: list[MixLoad]) -> None:
    judge = context.judge(context.mix.texts)
    for load in loads:
        spec = load.server.spec
        tier = Tier.BF16 if "bf" in spec.name else Tier.FP32
        peer = spec.name != context.tandem.name
        context.report.checks.append(judge.check(f"{spec.name} over HTTP", kept_rows(load.kept), tier, peer=peer))


def _report(report: Report, seconds: dict[str, list[float]], tokens: int, own: str) -> None:
    for name, taken in seconds.items():
        rates = summarize([tokens / s for s in taken])
        report.series.append(Series(f"{name}, bulk" if name != CEILING else name, "tokens/s", rates))
    report.figures.append(_against_peer(seconds, own))
    for name in seconds:
        if name not in (own, CEILING, PEER):
            report.figures.append(
                shown(f"bulk over HTTP against {name}", paired_ratio(seconds[name], seconds[own]), "x")
            )
    report.figures.append(at_least(AGAINST_CEILING, 0.9, paired_ratio(seconds[CEILING], seconds[own]), "x", 3))


def _against_peer(seconds: dict[str, list[float]], own: str) -> Figure:
    if PEER not in seconds:
        return missing(AGAINST_PEER, ">= 6x", "infinity is not set up")
    return at_least(AGAINST_PEER, 6, paired_ratio(seconds[PEER], seconds[own]), "x")


def _token_counts(server: Server) -> tuple[float, float]:
    """Real and padded tokens that the server has run so far."""
    text = server.get("/metrics").decode()
    real, padded = (
        sum(float(value) for value in re.findall(rf"^tandem_batch_{name}_total(?:{{.*?}})? (\S+)$", text, re.MULTILINE))
        for name in ("tokens", "padded_tokens")
    )
    return real, padded
