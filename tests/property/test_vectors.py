"""Any run of changes leaves every index with what a dict would have."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.types import Rows
from tandem.vectors import INDEXES, Index, IndexOptions, load_index, save_index
from tandem.vectors.storage import decode, encode

DIMS = 6
ROWS = np.random.default_rng(5).standard_normal((40, DIMS)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)

IDS = st.lists(st.integers(0, 25), max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), IDS, st.integers(0, 28)),
        st.tuples(st.just("remove"), IDS, st.just(0)),
        st.tuples(st.sampled_from(["work", "reload"]), st.just([]), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", list(INDEXES))
@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_an_index_holds_what_a_dict_would(name: str, steps: list[tuple[str, list[int], int]]) -> None:
    options = IndexOptions(dims=DIMS, linear_up_to=8, cell_rows=5, probes=99, rebuild_after=0.4, background=False)
    index: Index = INDEXES.get(name)(options)
    model: dict[int, Any] = {}
    with TemporaryDirectory() as folder:
        for step, ids, shift in steps:
            if step == "add":
                rows = ROWS[(np.arange(len(ids)) + shift) % len(ROWS)].reshape(len(ids), DIMS)
                index.add(np.array(ids, np.int64), rows)
                model |= dict(zip(ids, encode(rows, "int8"), strict=True))
            elif step == "remove":
                assert index.remove(np.array(ids, np.int64)) == len(model.keys() & set(ids))
                model = {one: row for one, row in model.items() if one not in ids}
            elif step == "reload":
                save_index(index, Path(folder) / "index")
                index = load_index(Path(folder) / "index", options)
            elif hasattr(index, "run_pending"):
                index.run_pending()
            holds(index, model)


def holds(index: Index, model: dict[int, Any]) -> None:
    assert len(index) == len(model)
    assert sorted(index.ids().tolist()) == sorted(model)
    ids, codes = index.stored(np.arange(26))
    assert {one: row.tolist() for one, row in zip(ids.tolist(), codes, strict=True)} == {
        one: row.tolist() for one, row in model.items()
    }
    if model:
        nearest(index, decode(np.stack(list(model.values()))))


def nearest(index: Index, kept: Rows) -> None:
    """The best answers have the best cosines. So few rows are all within the graph's reach."""
    queries = ROWS[:5]
    k = min(3, len(kept))
    _, cosines = index.search(queries, 3)
    best = -np.sort(-(queries @ kept.T), axis=1)[:, :k]
    np.testing.assert_allclose(cosines[:, :k], best, atol=1e-5)
    assert (cosines[:, k:] == -1).all()
