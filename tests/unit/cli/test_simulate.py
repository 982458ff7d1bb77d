from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from tandem.bench.load import Latency, LoadResult
from tandem.cli.main import main
from tandem.cli.profile_host import Spent, drag_of, host_profile, simulated_rate
from tandem.cli.simulate_validate import Compared, Figures, Round, table
from tandem.simulation.profile import load_profile


def test_a_table_a_file_and_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [
        "--devices",
        "cpu+l4-derived",
        "--dispatcher",
        "all",
        "--requests",
        "300",
        "--bound",
        "--out",
        str(tmp_path),
    ]
    assert main(["simulate", *words]) == 0
    shown = capsys.readouterr().out
    for text in ("round_robin", "earliest_finish", "Derived, not measured", "padding", "of bound"):
        assert text in shown
    written = json.loads((tmp_path / "simulate.json").read_text())
    assert len(written["rows"]) == 4
    assert written["rows"][0]["summary"]["p99_s"] >= written["rows"][0]["summary"]["p50_s"] > 0
    assert written["profiles"]["cpu"].startswith("minilm on")
    assert ET.parse(tmp_path / "simulate.svg").getroot().tag.endswith("svg")


def test_several_loads_are_drawn_against_each_other(tmp_path: Path) -> None:
    assert main(["simulate", "--requests", "100", "--load", "0.2,0.5", "--no-host", "--out", str(tmp_path)]) == 0
    assert "p99 latency by load" in (tmp_path / "simulate.svg").read_text()


def test_the_schedulers_cost_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--cost", "--requests", "200"]) == 0
    assert "texts a batch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--devices", "tpu"], "unknown profile 'tpu'"),
        (["--model", "gpt"], "no profile ships for model 'gpt'"),
        (["--rate", "-3"], "a load and a rate must be over 0"),
        (["--load", "much"], "--load takes numbers"),
        (["--arrivals", "tides"], "unknown arrivals 'tides'"),
        (["--dispatcher", "best"], "unknown dispatcher 'best'"),
        (["--policy", "best"], "unknown batch policy 'best'"),
        (["--requests", "0"], "at least one request"),
        (["--timeout", "-1"], "timeout_s must be 0 or more"),
        (["--objective", "-1"], "latency_objective_s must be 0 or more"),
        (["--arrivals", "mooncake", "--data", "/nowhere"], "name it with --data"),
        (["--validate", "--devices", "l4-derived"], "needs one device"),
    ],
)
def test_what_can_not_be_is_named(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *words]) == 2
    assert why in capsys.readouterr().err


def test_a_profile_needs_a_file_to_go_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--out", "profile.txt"]) == 2
    assert "--out must end in .json" in capsys.readouterr().err


def result(p50_s: float = 0.01, client_cpu_s: float = 0.0) -> LoadResult:
    return LoadResult(100, {}, "", 1.0, Latency(p50_s, p50_s, p50_s, 2 * p50_s, p50_s, p50_s), 0.0, client_cpu_s)


def test_what_a_request_and_what_a_batch_costs_follow_from_two_loads() -> None:
    """300 us a request and 400 a batch: alone each request is a batch, and in a crowd a tenth of one."""
    device = load_profile("cpu", "minilm")
    alone = Spent(700e-6, 1.0, result(p50_s=0.01, client_cpu_s=0.005))
    many = Spent(340e-6, 0.1, result(client_cpu_s=0.003))
    host = host_profile(device, alone, many, 5e-6, 12.0)
    assert host.request_s + host.answer_s + 12 * host.token_s == pytest.approx(300e-6)
    assert host.batch_s == pytest.approx(400e-6)
    assert host.client_s == pytest.approx(30e-6)
    assert 0 < host.hand_s < 0.01


def test_a_server_that_does_less_than_simulated_is_dragged() -> None:
    device = load_profile("cpu", "minilm")
    assert device.host is not None
    plain = msgspec.structs.replace(device.host, drag=1.0, client_s=0.0)
    expected = simulated_rate(device, msgspec.structs.replace(plain, drag=1.2), [12])
    measured = LoadResult(1000, {}, "", 1000 / expected, result().latency, 0.0, 0.0)
    assert drag_of(device, plain, [(measured, [12])]) == pytest.approx(1.2, abs=0.02)


def test_the_comparison_says_what_is_off() -> None:
    real = Figures(0.01, 0.02, 0.001, 1.5)

    def rounds(p50_s: float) -> tuple[Round, ...]:
        return tuple(Round(real, Figures(each, 2 * each, 0.0, 1.0), 0.0) for each in (p50_s, p50_s, 1.0))

    rows = [Compared("mix", 0.5, 10.0, rounds(p50_s)) for p50_s in (0.0105, 0.0115)]
    assert [row.agrees for row in rows] == [True, False]
    shown = table(rows)
    assert [line.endswith("OFF") for line in shown[1:3]] == [False, True]
