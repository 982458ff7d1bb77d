"""A bar chart as SVG, written by hand: a picture in a report is not worth a plotting library in the environment."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tandem.bench.stats import Summary

WIDTH, LABEL, ROW, TOP = 760, 280, 34, 48
BAR_SPACE = WIDTH - LABEL - 130


def bars(title: str, series: Sequence[tuple[str, Summary]]) -> str:
    """One horizontal bar a series at its median, the quartiles as a whisker; lengths start at zero."""
    scale = BAR_SPACE / (max((summary.q3 for _, summary in series), default=0.0) or 1.0)
    height = TOP + ROW * len(series) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-size="16" fill="#1a1a1a">{escape(title)}</text>',
    ]
    for index, (name, summary) in enumerate(series):
        parts += _bar(TOP + ROW * index, name, summary, scale)
    return "\n".join([*parts, "</svg>", ""])


def _bar(y: int, name: str, summary: Summary, scale: float) -> list[str]:
    middle = y + ROW // 2 - 4
    colour = "#1f6f8b" if name.startswith("tandem") else "#a9b7bd"
    low, high = LABEL + summary.q1 * scale, LABEL + summary.q3 * scale
    text = f'y="{middle + 5}" font-size="13" fill="#1a1a1a"'
    return [
        f'<text x="{LABEL - 10}" {text} text-anchor="end">{escape(name)}</text>',
        f'<rect x="{LABEL}" y="{y}" width="{summary.median * scale:.1f}" height="{ROW - 10}" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#1a1a1a" stroke-width="2"/>',
        f'<text x="{high + 8:.1f}" {text}>{summary.median:,.4g}</text>',
    ]
