from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from tandem.bench.conditions import Conditions, Neighbours, conditions
from tandem.bench.picture import bars
from tandem.bench.report import Check, Met, Report, Series, at_least, at_most, missing, shown, table
from tandem.bench.stats import summarize


@pytest.fixture(scope="module")
def measured() -> Conditions:
    return conditions({"texts": "3 texts"})


def test_conditions_name_machine_software_and_workload(measured: Conditions) -> None:
    text = "\n".join(measured.lines())
    assert measured.cores >= 1
    assert measured.memory_bytes > 2**28
    assert 0 <= measured.busy_before <= 1
    assert "3 texts" in text
    assert f"Python {measured.python}" in text


def test_a_disturbed_machine_is_told(measured: Conditions) -> None:
    quiet = msgspec.structs.replace(measured, busy_before=0.01)
    loud = msgspec.structs.replace(measured, busy_before=0.5)
    assert "DISTURBED" not in Report("t", quiet).text()
    assert "DISTURBED" in Report("t", loud).text()
    assert "DISTURBED" in Report("t", quiet, busy_by_others=0.5).text()


def test_others_use_a_share_of_the_cores() -> None:
    assert 0 <= Neighbours().share() <= 1


def test_a_figure_is_judged_by_its_median() -> None:
    assert at_least("x", 6, summarize([5.0, 7.0, 8.0]), "x").met is Met.YES
    assert at_least("x", 7.5, summarize([5.0, 7.0, 8.0]), "x").met is Met.NO
    assert at_most("y", 100, 99.0, " ms").met is Met.YES
    assert at_most("y", 100, 101.0, " ms").met is Met.NO
    assert shown("z", 1.0, "").met is Met.INFO
    assert missing("z", ">= 1", "no data").met is Met.NOT_MEASURED
    assert at_least("x", 1500, 1622.4, " req/s", 0).asked == ">= 1,500 req/s"


def test_only_wrong_results_make_a_report_wrong(measured: Conditions) -> None:
    slow, good, bad = at_least("slow", 6, 1.0, "x"), Check("rows", 0.9999, 0.999), Check("peer's rows", 0.2, 0.999)
    report = Report("t", measured, figures=[slow], checks=[good])
    assert report.right
    assert "not met" in report.text()
    wrong = Report("t", measured, figures=[slow], checks=[good, bad])
    assert not wrong.right
    assert "WRONG" in wrong.text()
    assert not Report("t", measured, problems=["2 requests failed"]).right


def test_a_check_of_nan_is_wrong() -> None:
    assert not Check("rows", float("nan"), 0.999).ok


def test_files_hold_all_of_it_and_one_picture_a_unit(measured: Conditions, tmp_path: Path) -> None:
    report = Report("t", measured, details={"raw": [1, 2]})
    report.series.append(Series("tandem", "tokens/s", summarize([10.0, 12.0])))
    report.series.append(Series("tandem, start", "s", summarize([2.0])))
    written = report.write(tmp_path / "results", "bench")
    assert [path.name for path in written] == ["bench.json", "bench.svg", "bench-2.svg"]
    data = msgspec.json.decode(written[0].read_bytes())
    assert data["series"][0]["summary"]["values"] == [10.0, 12.0]
    assert data["conditions"]["cores"] == measured.cores
    assert data["details"] == {"raw": [1, 2]}


def test_a_picture_is_an_image_with_a_bar_a_series() -> None:
    picture = bars("a < b", [("tandem", summarize([4.0, 5.0, 6.0])), ("peer & co", summarize([1.0]))])
    root = ET.fromstring(picture)
    rects = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(rects) == 3
    assert float(rects[1].get("width", "0")) == pytest.approx(5 * float(rects[2].get("width", "0")), rel=0.01)


def test_columns_line_up() -> None:
    assert table(("a", "b"), [("long", "x"), ("s", "y")]).splitlines() == ["a     b", "----  -", "long  x", "s     y"]
