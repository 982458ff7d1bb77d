from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tandem.errors import ConfigError
from tandem.simulation import ARRIVALS, Draw
from tests.unit.simulation.made import requests

DRAWN = ("poisson", "bursty")
TRACES = ("azure-llm-2023", "mooncake", "ragpulse", "servegen")


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """One small file of each trace, in its own format."""
    for name in TRACES:
        (tmp_path / name).mkdir()
    rows = [f"2023-11-16 18:17:{second:02d}.9799600,{1000 * second},8" for second in range(3, 13)]
    code = tmp_path / "azure-llm-2023" / "AzureLLMInferenceTrace_code.csv"
    code.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    chat = [{"timestamp": 3000 * (i // 4), "input_length": 500 + i, "hash_ids": [i]} for i in range(12)]
    with gzip.open(tmp_path / "mooncake" / "conversation_trace.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in chat)
    inputs = [{"user_input_id": i, "token_length": 5 + i} for i in range(4)]
    asked = [{"timestamp": str(90 - i), "hash_ids": {"user_input": [i % 5]}} for i in range(10)]
    for name, lines in (("4_user_input", inputs), ("0_trace", asked)):
        (tmp_path / "ragpulse" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in lines))
    tenants = ["0,600,1.5,2.0,Gamma,0,0", "1,600,0.5,9.0,Weibull,0,0", "1,1200,0.1,1.0,Gamma,0,0"]
    head = "client,window_start_s,rate_rps,cv,pattern,p1,p2"
    (tmp_path / "servegen" / "m-small-week1.csv").write_text("\n".join([head, *tenants]))
    return tmp_path


@pytest.mark.parametrize("name", ARRIVALS.names())
def test_times_go_upwards_and_lengths_are_texts(name: str, traces: Path) -> None:
    draw = Draw(requests=40, data=traces, seed=3)
    work = ARRIVALS.get(name)(draw)
    assert 0 < len(work) <= 40
    assert (np.diff(work.times_s) >= 0).all()
    assert work.times_s[0] >= 0
    assert ((work.lengths >= 1) & (work.lengths <= 512)).all()
    again = ARRIVALS.get(name)(draw)
    assert np.array_equal(work.times_s, again.times_s)
    assert np.array_equal(work.lengths, again.lengths)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_others(name: str) -> None:
    one, other = (ARRIVALS.get(name)(Draw(requests=50, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(one.times_s, other.times_s)


def test_bursts_are_as_bursty_as_was_asked() -> None:
    for cv in (1.0, 4.0):
        gaps = np.diff(ARRIVALS.get("bursty")(Draw(requests=100_000, cv=cv)).times_s)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_a_trace_is_repeated_and_cut_to_the_number_asked_for(traces: Path) -> None:
    whole = ARRIVALS.get("azure-llm-2023")(Draw(data=traces))
    assert len(whole) == 10
    assert whole.lengths.max() == 512
    longer = ARRIVALS.get("azure-llm-2023")(Draw(requests=25, data=traces))
    assert len(longer) == 25
    assert longer.lengths.tolist() == (whole.lengths.tolist() * 3)[:25]
    assert longer.times_s[10] > longer.times_s[9]


def test_mooncakes_times_are_spread_over_their_three_seconds(traces: Path) -> None:
    work = ARRIVALS.get("mooncake")(Draw(data=traces))
    assert len(set(work.times_s.tolist())) == 12


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data"):
        ARRIVALS.get(name)(Draw())
    with pytest.raises(ConfigError, match=f"there is no file .*{name}"):
        ARRIVALS.get(name)(Draw(data=tmp_path))


def test_an_empty_trace_is_refused(traces: Path) -> None:
    (traces / "azure-llm-2023" / "AzureLLMInferenceTrace_code.csv").write_text("TIMESTAMP,ContextTokens\n")
    with pytest.raises(ConfigError, match="the trace is empty"):
        ARRIVALS.get("azure-llm-2023")(Draw(data=traces))


def test_a_workload_can_be_run_at_another_rate_and_cut() -> None:
    work = requests([0.0, 1.0, 4.0], [5, 900, 0])
    assert work.at(3.0).rate == pytest.approx(3.0)
    assert work.clipped(512).lengths.tolist() == [5, 512, 1]
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="a rate must be over 0"):
            work.at(rate)


def test_draws_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one request"):
        Draw(requests=0)
    with pytest.raises(ConfigError, match="coefficient of variation"):
        Draw(cv=0.0)
    with pytest.raises(ConfigError, match="unknown lengths 'long'"):
        ARRIVALS.get("poisson")(Draw(lengths="long"))
    with pytest.raises(ConfigError, match="there is no request"):
        requests([], [])
