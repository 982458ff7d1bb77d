"""Lines as SVG, written by hand, as the benchmarks' bars are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 70, 48, 230, 48
COLOURS = ("#1f6f8b", "#c2572b", "#5b8c3e", "#7a4f9a", "#a98b1d", "#4a5560", "#b23a6b", "#2c9c8f")

Points = Sequence[tuple[float, float]]


def lines(title: str, x_name: str, y_name: str, series: Sequence[tuple[str, Points]], *, log_x: bool = False) -> str:
    """One line a series over shared axes; y from zero, x from zero or, ``log_x``, by powers of ten."""
    points = [point for _, line in series for point in line if math.isfinite(point[0]) and math.isfinite(point[1])]
    scale = _log10 if log_x else float
    low = min((scale(x) for x, _ in points), default=0.0) if log_x else 0.0
    high = max((scale(x) for x, _ in points), default=1.0)
    top = max((y for _, y in points), default=0.0) or 1.0
    across = (WIDTH - LEFT - RIGHT) / ((high - low) or 1.0)
    down = (HEIGHT - TOP - BOTTOM) / top

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (scale(x) - low) * across, HEIGHT - BOTTOM - y * down

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(16, 28, title, 16),
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#1a1a1a" fill="none"/>',
        _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8, x_name, 13, "middle"),
        _text(LEFT, TOP - 6, y_name, 13, "middle"),
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = 10 ** (low + (high - low) * share) if log_x else high * share
        parts.append(_text(place(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:.3g}", 12, "middle"))
        parts.append(_text(LEFT - 8, place(x, top * share)[1] + 4, f"{top * share:.3g}", 12, "end"))
    for index, (name, line) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(x, y) for x, y in line))
        y = TOP + 18 * index
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<path d="M{WIDTH - RIGHT + 16} {y}h20" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(WIDTH - RIGHT + 42, y + 4, name, 12))
    return "\n".join([*parts, "</svg>", ""])


def _log10(x: float) -> float:
    return math.log10(max(x, 1e-12))


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" fill="#1a1a1a">{escape(text)}</text>'
    )
