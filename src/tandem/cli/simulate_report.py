"""What ``tandem simulate`` prints and writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from tandem.simulation.chart import lines
from tandem.simulation.study import Row, Study

_HEAD = ("load", "devices", "dispatcher", "policy", "answered/s", "in time/s", "p50", "p95", "p99", "wait", "dropped")
_WIDTHS = (5, 26, 16, 13, 10, 10, 9, 9, 9, 9, 8)
_CURVE = np.linspace(0, 1, 201)


class Report:
    """Rows as they come, and all of them as files."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._rows: list[Row] = []

    def head(self) -> Iterator[str]:
        """What is simulated, from what."""
        plan = self._study.plan
        yield "# tandem simulate"
        yield f"requests  {self._study.source}; seed {plan.draw.seed}"
        for name, label in self._study.labels:
            yield f"profile   {name}: {label}"
        rate = f"{self._study.capacity:,.1f} requests/s of {plan.devices[0]}"
        yield f"capacity  {rate}: batches full and without padding, or the server's own if less"
        yield f"objective {1e3 * plan.objective_s:g} ms; times in ms; wait: mean, from the queue to the batch's start"
        host = "as the profile has it" if plan.host else "left out"
        yield f"server    its own cost {host}"
        yield ""
        yield _line((*_HEAD, "of bound") if plan.bound else _HEAD)

    def rows(self) -> Iterator[str]:
        """Runs them; a line a row, and one a device below it."""
        for row in self._study.rows():
            self._rows.append(row)
            yield self._text(row)
            for use in row.summary.devices:
                shares = f"busy {use.utilisation:6.1%}  padding {use.padding:5.1%}  texts {use.texts:6.1%}"
                yield f"      {use.id:<26} {shares}  {use.batches:,} batches"

    def write(self, folder: Path) -> list[Path]:
        """``simulate.json`` and ``simulate.svg``: latencies at one load, p99 against load where there are several."""
        folder.mkdir(parents=True, exist_ok=True)
        data, picture = folder / "simulate.json", folder / "simulate.svg"
        content = {
            "plan": self._study.plan,
            "options": self._study.options,
            "source": self._study.source,
            "capacity": self._study.capacity,
            "profiles": dict(self._study.labels),
            "rows": [_content(row) for row in self._rows],
        }
        encoded = msgspec.json.encode(content, enc_hook=str)
        data.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
        picture.write_text(self._picture(), encoding="utf-8")
        return [data, picture]

    def _text(self, row: Row) -> str:
        s = row.summary
        cells = [
            f"{row.load:.2f}",
            row.devices,
            row.dispatcher,
            row.policy,
            f"{s.throughput:,.1f}",
            f"{s.goodput:,.1f}",
        ]
        cells += [f"{1e3 * value:,.2f}" for value in (s.p50_s, s.p95_s, s.p99_s, s.wait_s)]
        cells.append(f"{s.refused + s.expired:,}")
        if row.of_bound is not None:
            cells.append(f"{row.of_bound:.3f}")
        return _line(tuple(cells))

    def _picture(self) -> str:
        if len({row.load for row in self._rows}) > 1:
            found: dict[str, list[tuple[float, float]]] = {}
            for row in self._rows:
                found.setdefault(row.name, []).append((row.load, 1e3 * row.summary.p99_s))
            return lines("p99 latency by load", "load, share of capacity", "ms", list(found.items()))
        curves = [
            (row.name, list(zip((1e3 * np.quantile(row.latencies_s, _CURVE)).tolist(), _CURVE.tolist(), strict=True)))
            for row in self._rows
            if len(row.latencies_s)
        ]
        return lines("latency", "ms", "share answered", curves, log_x=True)


def _content(row: Row) -> dict[str, object]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__ if name != "latencies_s"}
    found = row.latencies_s
    curve = np.quantile(found, (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)).tolist() if len(found) else []
    return fields | {"latency_quantiles_s": curve}


def _line(cells: tuple[str, ...]) -> str:
    widths = (*_WIDTHS, 8)
    return "  ".join(
        cell.ljust(width) if 1 <= place <= 3 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ).rstrip()
