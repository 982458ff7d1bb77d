from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tandem.bench.memory import Child, least_budget, report_on
from tandem.bench.memory_trace import GIVE, Trace, record, requests_of
from tandem.bench.memory_ways import WAYS
from tandem.bench.memory_worker import Footing, WayJob, footing, replay, turn
from tandem.config import Settings
from tandem.models.folder import ModelFolder
from tandem.models.loaded import load_model
from tandem.types import TokenIds

KIB = 1024
# Two buffers live at once, twice.
SMALL = Trace(
    requests=2,
    batches=2,
    events=[(1, 64 * KIB), (2, 100), (1, GIVE), (3, 32 * KIB), (2, GIVE), (3, GIVE)],
)


@pytest.fixture(scope="module")
def trace(minilm_folder: ModelFolder) -> Trace:
    rng = np.random.default_rng(0)
    texts: list[TokenIds] = [[101, *rng.integers(1000, 2000, n).tolist(), 102] for n in rng.integers(1, 200, 50)]
    requests = requests_of(texts, texts[:10], 60, seed=1)
    return record(Settings(), load_model(minilm_folder), requests, dims=384)


def test_requests_are_of_all_kinds_and_repeat_with_their_seed() -> None:
    texts: list[TokenIds] = [[101, n, 102] for n in range(100)]
    found = requests_of(texts, texts, 500, seed=3)
    assert found == requests_of(texts, texts, 500, seed=3)
    sizes = [len(request) for request in found]
    assert sizes.count(1) > 300
    assert max(sizes) > 64


def test_every_buffer_of_a_trace_comes_back_once_and_only_after_it_was_taken(trace: Trace) -> None:
    out: set[int] = set()
    for buffer, nbytes in trace.events:
        assert (buffer in out) == (nbytes == GIVE)
        out.symmetric_difference_update([buffer])
    assert out == set()
    assert trace.takes == 5 * trace.batches
    assert trace.requests == 60


def test_a_trace_knows_what_is_live() -> None:
    assert SMALL.takes == 3
    assert SMALL.live_bytes() == [64 * KIB, 64 * KIB + 100, 32 * KIB + 100]


@pytest.mark.parametrize("name", [name for name in WAYS if "CUDA" not in name and "cuda" not in name])
def test_every_way_replays_a_trace(name: str, trace: Trace) -> None:
    if "torch" in name:
        pytest.importorskip("torch")
    if "pinned" in name or "device" in name:
        pytest.skip("needs CUDA")
    way = WAYS.get(name)(64 << 20)
    found = footing(trace, way)
    assert found.live_peak_bytes == max(trace.live_bytes())
    assert 0 <= found.fragmentation < 1
    assert 0 < found.take_p50_s <= found.take_p99_s
    way.reset()
    replay(trace, way.take, way.give)
    if way.statistics is not None:
        assert way.statistics().in_use_bytes == 0


def test_the_least_budget_carries_the_trace_and_little_less_does_not(trace: Trace) -> None:
    live = max(trace.live_bytes())
    assert live <= least_budget(trace) < 1.5 * live


def test_a_way_runs_in_a_process_of_its_own_and_one_that_is_not_here_says_why() -> None:
    with Child(WayJob("tandem pool, host", SMALL, 1 << 20)) as child:
        assert child.footing.error == ""
        assert child.footing.statistics is not None
        assert child.footing.statistics.store_allocations == 1
        assert isinstance(child.seconds("take"), float)
        assert isinstance(child.seconds("fill"), float)


def test_a_way_that_is_not_here_is_a_figure_that_is_not_measured() -> None:
    footings = {
        "numpy.empty (malloc)": Footing(live_peak_bytes=80, held_peak_bytes=100),
        "tandem pool, arrays": Footing(live_peak_bytes=80, held_peak_bytes=82),
    }
    absent = {name: "no CUDA here" for name in WAYS if name not in footings}
    seconds = {"numpy.empty (malloc)": [4.0, 4.0], "tandem pool, arrays": [1.0, 1.0]}
    figures = {figure.name: figure for figure in report_on(seconds, seconds, footings, absent)}
    met = {name: figure.met.value for name, figure in figures.items()}
    assert met["take and give: tandem pool, arrays against numpy.empty (malloc)"] == "met"
    assert met["fragmentation at the peak: tandem pool, arrays against numpy.empty (malloc)"] == "met"
    missing = figures["take, fill and give: tandem pool, device against cudaMalloc each time"]
    assert (missing.met.value, missing.measured) == ("not measured", "no CUDA here")


def test_a_trace_survives_the_way_to_its_child() -> None:
    assert msgspec.json.decode(msgspec.json.encode(SMALL), type=Trace) == SMALL


def test_a_turn_is_timed_over_many_takes() -> None:
    way = WAYS.get("tandem pool, host")(1 << 20)
    turn(SMALL, way, fill=False)
    assert way.statistics is not None
    assert way.statistics().takes >= 10_000
