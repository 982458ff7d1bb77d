"""What each tier did: texts and tokens by where they came from, and how long look-ups took."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from tandem.clock import Clock
from tandem.types import Source

_REMEMBERED = 1024


class TierReport(msgspec.Struct, frozen=True, kw_only=True):
    """Texts and tokens that came from one tier, their share of all, and the time of its last look-ups, in seconds; of a
    miss, none is known here."""

    texts: int
    tokens: int
    text_share: float
    token_share: float
    p50_s: float | None
    p99_s: float | None


class Tally:
    """Counts cost a few tenths of a microsecond each: they are on the path of a hit."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now
        self.texts = dict.fromkeys(Source, 0)
        self.tokens = dict.fromkeys(Source, 0)
        self.seconds = {source: deque[float](maxlen=_REMEMBERED) for source in Source}

    def count(self, source: Source, tokens: int) -> None:
        """One text."""
        self.texts[source] += 1
        self.tokens[source] += tokens

    @property
    def total_texts(self) -> int:
        """All that were answered."""
        return sum(self.texts.values())

    @contextmanager
    def timed(self, source: Source) -> Iterator[None]:
        """A look-up that may take long."""
        begun_s = self.now()
        try:
            yield
        finally:
            self.seconds[source].append(self.now() - begun_s)

    def report(self) -> dict[str, TierReport]:
        """By tier."""
        texts, tokens = sum(self.texts.values()), sum(self.tokens.values())
        return {
            source.value: TierReport(
                texts=self.texts[source],
                tokens=self.tokens[source],
                text_share=self.texts[source] / max(1, texts),
                token_share=self.tokens[source] / max(1, tokens),
                p50_s=_quantile(self.seconds[source], 0.5),
                p99_s=_quantile(self.seconds[source], 0.99),
            )
            for source in Source
        }


def _quantile(values: Sequence[float], share: float) -> float | None:
    return sorted(values)[int(share * (len(values) - 1))] if values else None
