"""docs/api.md says what the server does: its routes, its errors, its metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tandem.server.errors import CASES
from tandem.telemetry import INSTRUMENTS, Instrument
from tests.http.conftest import Server

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text("utf-8")


@pytest.mark.parametrize("row", INSTRUMENTS, ids=lambda row: row.name)
def test_each_metric_is_in_the_table(row: Instrument) -> None:
    labels = ", ".join(f"`{label}`" for label in row.labels)
    assert f"| `{row.name}` | {row.kind} | {labels} | {row.help} |" in PAGE


async def test_each_path_is_in_the_table(server: Server) -> None:
    hidden = ("/embed_sparse", "/rerank", "/predict", "/ping", "/embeddings", "/models", "/docs", "/openapi.json")
    for path in (*(await server.get("/openapi.json")).json()["paths"], *hidden):
        assert re.search(rf"`(GET |POST )?{re.escape(path)}`", PAGE), path


def test_each_code_is_in_the_table() -> None:
    codes = {case.code for case in CASES.values() if case.code and case.code != "client_left"}
    codes -= {"wrong_model_type"}  # TEI's alone, where it shows as 424
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
