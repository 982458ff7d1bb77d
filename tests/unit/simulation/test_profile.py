from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tandem.errors import ConfigError
from tandem.scheduling.cost_model import Cost
from tandem.simulation.fit import Timed, fit
from tandem.simulation.fleet import build_devices, capacity, parse_fleet
from tandem.simulation.profile import HostProfile, Shape, decode, encode, load_profile, shipped
from tests.unit.simulation.made import SLOW, fleet, profile

SHIPPED = [(model, name) for model, names in shipped().items() for name in names]


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_what_ships_says_what_it_is(model: str, name: str) -> None:
    found = load_profile(name, model)
    assert (found.name, found.model) == (name, model)
    if found.measured:
        assert found.source.startswith("Measured")
        assert found.conditions
    else:
        assert found.source.startswith("Derived, not measured.")


def test_the_cpu_ships_with_its_server() -> None:
    found = load_profile("cpu", "minilm")
    assert found.measured
    assert found.host is not None


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_bytes(encode(SLOW))
    assert load_profile(str(path), "whatever") == SLOW


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"measured": False}, "must end in -derived"),
        ({"slots": 0}, "needs a slot"),
        ({"speeds": ()}, "needs a slot"),
        ({"residuals": (1.2, 0.8)}, "ascending"),
        ({"cost": Cost(-1e-3, 1e-6)}, "fixed_s must be 0 or more"),
        ({"cost": Cost(1e-3, 0.0)}, "a token must cost time"),
    ],
)
def test_a_profile_that_can_not_be_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        profile(**changes)
    with pytest.raises(ConfigError, match="request_s"):
        HostProfile(request_s=float("nan"), answer_s=0.0)


def test_a_profile_that_is_not_there_or_not_readable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown profile 'tpu'; known for minilm are: cpu"):
        load_profile("tpu", "minilm")
    with pytest.raises(ConfigError, match="no profile ships for model 'gpt'"):
        load_profile("cpu", "gpt")
    with pytest.raises(ConfigError, match=r"none\.json: No such file"):
        load_profile(str(tmp_path / "none.json"), "minilm")
    with pytest.raises(ConfigError, match="made: Object contains unknown field"):
        decode(encode(SLOW).replace(b'"slots"', b'"seats"'), "made")


def test_fleets_are_sums() -> None:
    ids = [member.id for member in parse_fleet("cpu+h100-derived*2", "minilm")]
    assert ids == ["cpu", "h100-derived#1", "h100-derived#2"]
    for text, why in (("cpu*0", "from 1 to"), ("cpu+cpu", "twice"), ("cpu**2", "is not NAME"), ("", "is not NAME")):
        with pytest.raises(ConfigError, match=why):
            parse_fleet(text, "minilm")


def test_a_file_of_another_model_does_not_serve_beside(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_bytes(encode(SLOW))
    with pytest.raises(ConfigError, match="different models"):
        parse_fleet(f"cpu+{path}", "minilm")


def test_speeds_beyond_those_that_were_measured_are_shared_out() -> None:
    two = profile(slots=2, speeds=(1.0, 0.9))
    assert [two.speed(running) for running in (1, 2, 4)] == pytest.approx([1.0, 0.9, 0.45])
    assert two.streams_speed == pytest.approx(1.8)
    assert profile(slots=2, in_turn=True).streams_speed == 1.0


def test_capacity_adds_up() -> None:
    lengths = np.array([10, 20])
    assert capacity(fleet(SLOW, SLOW), lengths) == pytest.approx(2 * capacity(fleet(SLOW), lengths))


def test_devices_know_their_cost_from_the_start() -> None:
    (device,) = build_devices(fleet(SLOW), "memory_aware", 0.1)
    assert device.cost.for_tokens(500) == pytest.approx(SLOW.seconds(Shape(500, 0, 1)), rel=0.1)


def test_a_fit_finds_what_made_the_times() -> None:
    cost, cold_s = Cost(1.5e-3, 6e-5, 4e-8, 2e-5), 0.7e-3
    rng = np.random.default_rng(0)
    batches = []
    for index in range(200):
        lengths = rng.integers(3, 200, rng.integers(1, 20))
        shape = Shape(int(lengths.sum()), int(lengths @ lengths), len(lengths))
        seconds = cost.seconds(*msgspec.structs.astuple(shape)) + cold_s * (index % 2)
        batches.append(Timed(shape, bool(index % 2), seconds * rng.uniform(0.95, 1.05)))
    found = fit(batches)
    assert (found.cost.fixed_s, found.cost.token_s) == pytest.approx((cost.fixed_s, cost.token_s), rel=0.1)
    assert found.cold_s == pytest.approx(cold_s, rel=0.1)
    assert found.error < 0.04
    assert np.mean(found.residuals) == pytest.approx(1, abs=0.01)
    with pytest.raises(ConfigError, match="a fit needs"):
        fit(batches[:5])


def test_a_fit_has_no_negative_cost() -> None:
    batches = [Timed(Shape(n, 10 * n, 1), False, 1e-3 + 1e-6 * (1000 - n)) for n in range(100, 900, 20)]
    assert min(msgspec.structs.astuple(fit(batches).cost)) >= 0
