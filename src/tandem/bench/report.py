"""A benchmark's result: figures asked and measured, series with spread, checks of the vectors, printed and written."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from tandem.bench.conditions import BUSY_SHARE, Conditions
from tandem.bench.picture import bars
from tandem.bench.stats import Summary


class Met(StrEnum):
    """Whether a figure was reached. ``INFO``: nothing was asked. ``NOT_MEASURED``: what it needs is not here."""

    YES = "met"
    NO = "not met"
    INFO = ""
    NOT_MEASURED = "not measured"


class Figure(msgspec.Struct, frozen=True):
    """One row of the table people read."""

    name: str
    asked: str
    measured: str
    met: Met
    note: str = ""


class Series(msgspec.Struct, frozen=True):
    """One way of doing the work, over the rounds of one run."""

    name: str
    unit: str
    summary: Summary
    settings: dict[str, str] = {}


class Check(msgspec.Struct, frozen=True):
    """A test of the vectors, or of an answer: the only thing a benchmark can fail on."""

    name: str
    value: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.value >= self.bound


class Report(msgspec.Struct):
    """Everything one run found out; ``details`` is free-form and goes to the JSON
    alone; ``notes`` name the peers, their versions and settings;
    ``busy_by_others`` is a share of all cores, from 0 to 1."""

    title: str
    conditions: Conditions
    figures: list[Figure] = msgspec.field(default_factory=list)
    series: list[Series] = msgspec.field(default_factory=list)
    checks: list[Check] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    busy_by_others: float = 0.0
    details: dict[str, object] = msgspec.field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether every vector that was checked is right and nothing else went wrong."""
        return not self.problems and all(check.ok for check in self.checks)

    @property
    def disturbed(self) -> bool:
        """Whether others used so much of the cores, before or meanwhile, that absolute figures say little."""
        return max(self.busy_by_others, self.conditions.busy_before) > BUSY_SHARE

    def text(self) -> str:
        """The report as it is printed."""
        parts = [f"# {self.title}", *self.conditions.lines(), *(f"peer      {note}" for note in self.notes)]
        parts.append(f"others    used {self.busy_by_others:.0%} of the cores while this ran")
        if self.disturbed:
            parts.append("DISTURBED by others on this machine: trust ratios within the run, not absolute figures")
        parts.append("")
        if self.series:
            rows = [(s.name, s.summary.text(digits=_digits(s.summary.median)), s.unit) for s in self.series]
            parts += [table(("series", "median [quartiles]", "unit"), rows), ""]
        if self.checks:
            verdicts = [(c.name, f"{c.value:.6f}", f">= {c.bound}", "right" if c.ok else "WRONG") for c in self.checks]
            parts += [table(("check", "value", "bound", ""), verdicts), ""]
        shown = [(f.name, f.asked, f.measured, f.met.value) for f in self.figures]
        parts.append(table(("figure", "asked", "measured", ""), shown))
        parts += [f"note: {figure.name}: {figure.note}" for figure in self.figures if figure.note]
        parts += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(parts)

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write ``name.json`` and, where there are series, ``name.svg`` to ``folder``; returns what was written."""
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / f"{name}.json"
        data.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        written = [data]
        for unit in dict.fromkeys(series.unit for series in self.series):
            chosen = [(s.name, s.summary) for s in self.series if s.unit == unit]
            suffix = "" if not written[1:] else f"-{len(written)}"
            picture = folder / f"{name}{suffix}.svg"
            picture.write_text(bars(f"{self.title}: {unit}", chosen), encoding="utf-8")
            written.append(picture)
        return written


def at_least(name: str, asked: float, measured: float | Summary, unit: str, digits: int = 2) -> Figure:
    """A figure that is met from ``asked`` upwards; a summary is judged by its median."""
    value, text = _value(measured, unit, digits)
    return Figure(name, f">= {asked:,g}{unit}", text, Met.YES if value >= asked else Met.NO)


def at_most(name: str, asked: float, measured: float | Summary, unit: str, digits: int = 2) -> Figure:
    """A figure that is met up to ``asked``."""
    value, text = _value(measured, unit, digits)
    return Figure(name, f"<= {asked:,g}{unit}", text, Met.YES if value <= asked else Met.NO)


def shown(name: str, measured: float | Summary, unit: str, digits: int = 2) -> Figure:
    """A figure for which nothing was asked."""
    return Figure(name, "", _value(measured, unit, digits)[1], Met.INFO)


def missing(name: str, asked: str, reason: str) -> Figure:
    """A figure that could not be measured here, and why."""
    return Figure(name, asked, reason, Met.NOT_MEASURED)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns aligned by spaces, the form that reads well in a terminal and in a code block."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _value(measured: float | Summary, unit: str, digits: int) -> tuple[float, str]:
    if isinstance(measured, Summary):
        return measured.median, f"{measured.text(digits)}{unit}"
    return measured, f"{measured:,.{digits}f}{unit}"


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
