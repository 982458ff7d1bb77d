"""Lengths for arrivals that bring none of their own, as tables of quantiles: no data are needed to draw from them."""

from __future__ import annotations

import numpy as np

from tandem.errors import ConfigError
from tandem.simulation.base import Draw, Lengths

# Tokens by all-MiniLM-L6-v2's tokenizer, special ones included, at the quantiles 0, 2.5, ... 100 %. Of 3,610 questions
# that people typed (Natural Questions, test): mean 11.8; and of 1,032 English questions, abstracts, paragraphs and
# articles, cut at 512: mean 216.
_QUESTIONS = """
    10 10 10 10 10 10 10 10 10 10 10 10 11 11 11 11 11 11 11 11 11 11 11 12 12 12 12 12 12 12 13 13 13 13 14 14 15 15 16
    18 24"""
_MIX = """
    5 10 10 10 11 11 11 11 12 13 13 15 18 91 111 129 143 157 172 189 204 217 228 243 254 271 281 301 321 341 354 370 393
    427 461 512 512 512 512 512 512"""
TABLES = {name: tuple(map(int, text.split())) for name, text in (("questions", _QUESTIONS), ("mix", _MIX))}


def draw_lengths(draw: Draw, n: int) -> Lengths:
    """``n`` lengths from the table or of the number that ``draw.lengths`` names. Raises ConfigError for neither."""
    if draw.lengths.isdecimal() and int(draw.lengths) > 0:
        return np.full(n, int(draw.lengths), np.int64)
    table = TABLES.get(draw.lengths)
    if table is None:
        raise ConfigError(f"unknown lengths {draw.lengths!r}; known are: {', '.join(TABLES)}, or a number of tokens")
    # A stream of its own, so that the same lengths come whatever else is drawn.
    share = np.random.default_rng([draw.seed, 1]).random(n)
    return np.interp(share, np.linspace(0, 1, len(table)), table).round().astype(np.int64)
