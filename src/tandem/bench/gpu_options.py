"""What ``tandem bench gpu`` is asked to do; ``cli/bench.py`` fills it in."""

from __future__ import annotations

from pathlib import Path

import msgspec

VARIANTS = ("no-graphs", "fused-gelu", "compile")
"""Ways of running that are not the default, measured beside it."""


class GpuBenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``model``: a folder, id or short name; empty for an encoder of random weights, of the size that ``layers``,
    ``hidden`` and ``heads`` give (BERT-base). ``batch_tokens``: of a full batch. ``rounds`` are counted rounds.
    ``variants``: of ``VARIANTS``. ``peer``: do the same work by transformers, where it is installed. ``quick``: few and
    small batches, to see that it runs; the figures then mean nothing."""

    device: str = "cuda:0"
    model: str = ""
    precision: str = "bf16"
    layers: int = 12
    hidden: int = 768
    heads: int = 12
    batch_tokens: int = 16384
    streams: int = 2
    rounds: int = 5
    seed: int = 0
    variants: tuple[str, ...] = VARIANTS
    peer: bool = True
    quick: bool = False
    out: Path = Path("bench/results")

    @property
    def text_counts(self) -> tuple[int, ...]:
        """Of the batches whose latency is measured."""
        return (1, 8) if self.quick else (1, 8, 32, 128, 512)

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """The lengths of texts that are measured."""
        return (16, 50) if self.quick else (16, 50, 128, 512)

    @property
    def longest(self) -> int:
        return max(self.text_tokens)

    @property
    def full_batches(self) -> int:
        """Batches of a round of throughput."""
        return 2 if self.quick else 24

    @property
    def engine_texts(self) -> int:
        """Texts of a round through the engine."""
        return 64 if self.quick else 40_000
