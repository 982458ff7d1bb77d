"""Arrivals as somebody's service recorded them. The files are not part of Tandem; docs/simulation.md says which.

Three were recorded at services of language models, whose prompts are longer than any text that an encoder takes: cut at
512 tokens nearly all would be alike. So their lengths are scaled, the 99th of 100 to the longest text of the model.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tandem.errors import ConfigError
from tandem.simulation.arrivals import REQUESTS, gamma_times
from tandem.simulation.base import Draw, Lengths, Times, Workload
from tandem.simulation.lengths import draw_lengths

_MOONCAKE_QUANTUM_S = 3.0
_SERVEGEN_WINDOW_S = 600.0
_SCALED_QUANTILE = 0.99


def azure(draw: Draw) -> Workload:
    """An hour of a service that completes code, November 2023: bursts and pauses, gaps of CV 13."""
    with _file(draw, "azure-llm-2023", "AzureLLMInferenceTrace_code.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Seven digits of a second; only the difference to the first counts, so no zone is needed.
    stamps = [datetime.fromisoformat(row["TIMESTAMP"][:26] + "+00:00") for row in rows]
    times_s = np.array([(stamp - stamps[0]).total_seconds() for stamp in stamps])
    lengths = np.array([int(row["ContextTokens"]) for row in rows], np.int64)
    return _repeated(draw, times_s, _scaled(lengths, draw.longest), "azure-llm-2023, code, lengths scaled")


def mooncake(draw: Draw) -> Workload:
    """An hour of a chat service. Its times are rounded to about 3 s: each is spread over its own 3 s, evenly."""
    with gzip.open(_file(draw, "mooncake", "conversation_trace.jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = list(_json_lines(file))
    times_s = np.array([row["timestamp"] / 1e3 for row in rows])
    times_s += np.random.default_rng([draw.seed, 2]).random(len(times_s)) * _MOONCAKE_QUANTUM_S
    lengths = np.array([row["input_length"] for row in rows], np.int64)
    order = np.argsort(times_s, kind="stable")
    scaled = _scaled(lengths, draw.longest)
    return _repeated(draw, times_s[order], scaled[order], "mooncake, conversation, lengths scaled")


def ragpulse(draw: Draw) -> Workload:
    """The users' own questions to a service that looks things up, with their lengths."""
    with _file(draw, "ragpulse", "4_user_input.jsonl").open(encoding="utf-8") as file:
        tokens = {row["user_input_id"]: row["token_length"] for row in _json_lines(file)}
    with _file(draw, "ragpulse", "0_trace.jsonl").open(encoding="utf-8") as file:
        asked = [(float(row["timestamp"]), row["hash_ids"]["user_input"]) for row in _json_lines(file)]
    # The two special tokens that an encoder adds.
    known = sorted((time_s, tokens[ids[0]] + 2) for time_s, ids in asked if ids and ids[0] in tokens)
    times_s = np.array([time_s for time_s, _ in known])
    return _repeated(draw, times_s, np.array([n for _, n in known], np.int64), "ragpulse, user inputs")


def servegen(draw: Draw) -> Workload:
    """43 tenants of a model service: their busiest ten minutes, gaps drawn by each tenant's rate and burstiness."""
    with _file(draw, "servegen", "m-small-week1.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            (float(row["window_start_s"]), float(row["rate_rps"]), float(row["cv"])) for row in csv.DictReader(file)
        ]
    totals: dict[float, float] = {}
    for start_s, rate, _ in rows:
        totals[start_s] = totals.get(start_s, 0.0) + rate
    busiest = max(totals, key=totals.__getitem__, default=0.0)
    times_s = _tenants([(rate, cv) for start_s, rate, cv in rows if start_s == busiest], draw)
    lengths = draw_lengths(draw, len(times_s))
    return Workload(times_s, lengths, f"servegen, the tenants of the busiest ten minutes, {draw.lengths}")


def _tenants(tenants: Sequence[tuple[float, float]], draw: Draw) -> Times:
    rng = np.random.default_rng([draw.seed, 3])
    total = sum(rate for rate, _ in tenants)
    span_s = min(_SERVEGEN_WINDOW_S, (draw.requests or REQUESTS) / max(total, 1e-9))
    found = []
    for rate, cv in tenants:
        times_s = gamma_times(rng, int(2 * rate * span_s) + 20, max(cv, 0.1)) / rate
        # Begin somewhere in its course, not with a burst of all tenants at 0.
        found.append((times_s + rng.random() * span_s) % span_s if len(times_s) else times_s)
        found[-1] = found[-1][: max(1, round(rate * span_s))]
    merged = np.sort(np.concatenate(found)) if found else np.empty(0)
    return merged[: draw.requests] if draw.requests else merged


def _file(draw: Draw, folder: str, name: str) -> Path:
    if draw.data is None:
        raise ConfigError(
            f"arrivals {folder} are replayed from a folder of traces: name it with --data or $TANDEM_DATA"
        )
    path = draw.data / folder / name
    if not path.is_file():
        raise ConfigError(f"arrivals {folder}: there is no file {path}")
    return path


def _json_lines(lines: Iterator[str] | Any) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in lines if line.strip())


def _scaled(lengths: Lengths, longest: int) -> Lengths:
    if not len(lengths):
        return lengths
    factor = longest / max(1.0, float(np.quantile(lengths, _SCALED_QUANTILE)))
    # Three: a word between two special tokens.
    scaled: Lengths = np.clip(np.rint(lengths * min(1.0, factor)), 3, longest).astype(np.int64)
    return scaled


def _repeated(draw: Draw, times_s: Times, lengths: Lengths, source: str) -> Workload:
    """As many requests as are asked for: the first of the trace, or the trace over and over."""
    if not len(times_s):
        raise ConfigError(f"{source}: the trace is empty")
    wanted = draw.requests or len(times_s)
    turns = -(-wanted // len(times_s))
    times_s = times_s - times_s[0]
    period_s = float(times_s[-1]) * (1 + 1 / len(times_s)) or 1.0
    spread = np.concatenate([times_s + turn * period_s for turn in range(turns)])[:wanted]
    return Workload(spread, np.tile(lengths, turns)[:wanted], source)
