"""What the benchmarks are asked to do; ``cli/bench.py`` fills it in."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tandem.models.catalog import DEFAULT_MODEL


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``texts`` and ``peer_texts``: how many of the mix each side runs, None for all; ``rounds`` are counted rounds.

    ``peers`` are names as in ``bench/peers``; ``peers_folder`` is where they were set up. ``minutes`` is the length of
    the memory run, ``seconds`` that of each load on single questions. ``kills``: how often a worker is killed under
    load. ``only`` names parts, empty means all.
    """

    model: str = DEFAULT_MODEL
    precision: str = "bf16"
    threads: int = 2
    data: Path | None = None
    texts: int | None = None
    rounds: int = 5
    peers: tuple[str, ...] = ()
    peers_folder: Path = Path("bench/peers")
    seed: int = 0
    only: tuple[str, ...] = ()
    seconds: float = 10.0
    minutes: float = 10.0
    connections: int = 8
    kills: int = 20
    out: Path = Path("bench/results")
