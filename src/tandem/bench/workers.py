"""What it costs to drive a device from a process of its own, and what two small workers do against a large one."""

from __future__ import annotations

from contextlib import ExitStack

from tandem.bench.bulk import MixLoad
from tandem.bench.context import Context, kept_rows
from tandem.bench.processes import tandem_server
from tandem.bench.report import Series, at_least, shown
from tandem.bench.stats import interleave, paired_ratio, summarize
from tandem.types import Tier

_INLINE, _PROCESS, _TWO = "workers inline", "workers process", "two workers"
_SETTINGS = {
    _INLINE: {"workers": "inline", "device": "cpu"},
    _PROCESS: {"workers": "process", "device": "cpu"},
    _TWO: {"workers": "process", "device": "cpu*2"},
}


def workers(context: Context) -> None:
    """Bulk over HTTP through three servers that stay up for the whole part; one is asked at a time."""
    options, report = context.options, context.report
    with ExitStack() as stack:
        loads = {
            name: MixLoad(
                context,
                stack.enter_context(
                    context.start(tandem_server(options.model, options.precision, options.threads, settings))
                ),
            )
            for name, settings in _SETTINGS.items()
        }
        seconds = interleave({name: load.seconds for name, load in loads.items()}, options.rounds)
        judge = context.judge(context.mix.texts)
        for name, load in loads.items():
            report.checks.append(judge.check(name, kept_rows(load.kept), Tier(options.precision)))
    ids = context.model.tokenizer.encode(context.mix.texts, truncate=True).ids
    tokens = sum(map(len, ids))
    for name, taken in seconds.items():
        report.series.append(Series(f"tandem, {name}, bulk", "tokens/s", summarize([tokens / s for s in taken])))
    one, two = seconds[_PROCESS], seconds[_TWO]
    report.figures += [
        at_least("worker process against inline, bulk", 0.95, paired_ratio(seconds[_INLINE], one), "x", 3),
        shown("two workers of half the cores against one of all, bulk", paired_ratio(one, two), "x", 3),
    ]
