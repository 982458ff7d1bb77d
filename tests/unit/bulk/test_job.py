from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tandem.bulk.base import Source
from tandem.bulk.job import check_job
from tandem.bulk.journal import Workspace
from tandem.bulk.options import OnError
from tandem.errors import BackendFailed, JobError
from tandem.types import Rows
from tests.unit.bulk.jobs import (
    DIMENSIONS,
    Heard,
    expected,
    file_source,
    hash_rows,
    job,
    refuse,
    rows_of,
    run,
    vectors_of,
    with_options,
    write_input,
)

TEXTS = [f"text {number}" for number in range(10)]


class Stops:
    """A model that fails at its ``calls``-th call, and counts the texts it was given before."""

    def __init__(self, calls: int, error: BaseException | None = None) -> None:
        self.left = calls
        self.error = error or BackendFailed("the device is gone")
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> Rows:
        self.left -= 1
        if self.left < 0:
            raise self.error
        self.seen += texts
        return hash_rows(texts)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_input(tmp_path / "in.jsonl", TEXTS)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_job_from_start_to_end(source: Path, output: Path) -> None:
    heard = Heard()
    summary = run(job(source, output), heard=heard)
    assert (summary.records, summary.without, summary.resumed_at) == (10, 0, 0)
    assert vectors_of(output) == expected(list(TEXTS))
    assert rows_of(output) == [{"id": number, "text": f"text {number}"} for number in range(10)]
    assert heard.phases == [("checking", None, 0), ("embedding", 10, 0), ("writing", 10, 0)]
    assert heard.count == 10
    assert sorted(path.name for path in output.parent.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_stopped_job_goes_on_where_it_was(source: Path, output: Path) -> None:
    heard = Heard()
    with pytest.raises(BackendFailed):
        run(job(source, output), Stops(2), heard=heard)
    assert not output.exists()
    assert heard.said == ["stopped: 6 of 10 texts are saved; run the same command again to go on"]
    rest, heard = Stops(99), Heard()
    summary = run(job(source, output), rest, heard=heard)
    assert rest.seen == TEXTS[6:]
    assert summary.resumed_at == 6
    assert heard.said == ["going on at 6 of 10 texts"]
    assert heard.phases[0] == ("embedding", 10, 6)
    assert vectors_of(output) == expected(list(TEXTS))


def test_ctrl_c_says_how_to_go_on(source: Path, output: Path) -> None:
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        run(job(source, output), Stops(1, KeyboardInterrupt()), heard=heard)
    assert heard.said == ["stopped: 3 of 10 texts are saved; run the same command again to go on"]
    run(job(source, output))
    assert vectors_of(output) == expected(list(TEXTS))


def test_an_output_that_exists_is_kept_unless_asked(source: Path, output: Path) -> None:
    output.write_text("precious")
    with pytest.raises(JobError, match=r"out\.jsonl exists; --overwrite replaces it"):
        run(job(source, output))
    assert output.read_text() == "precious"
    assert not output.with_name("out.jsonl.tandem-job").exists()
    run(with_options(job(source, output), overwrite=True))
    assert vectors_of(output) == expected(list(TEXTS))


def test_an_old_output_stays_until_the_new_one_is_whole(source: Path, output: Path) -> None:
    output.write_text("precious")
    with pytest.raises(BackendFailed):
        run(with_options(job(source, output), overwrite=True), Stops(2))
    assert output.read_text() == "precious"
    rest = Stops(99)
    run(with_options(job(source, output), overwrite=True), rest)
    assert rest.seen == TEXTS[6:]


def stop_half_way(source: Path, output: Path) -> None:
    with pytest.raises(BackendFailed):
        run(job(source, output), Stops(2))


def test_another_input_is_not_gone_on_with(source: Path, output: Path) -> None:
    stop_half_way(source, output)
    write_input(source, [*TEXTS, "one more"])
    with pytest.raises(JobError, match=r"unfinished job with 6 texts done, but the input's size was .* --restart"):
        run(job(source, output))
    summary = run(with_options(job(source, output), restart=True))
    assert (summary.records, summary.resumed_at) == (11, 0)


def test_another_model_is_not_gone_on_with(source: Path, output: Path) -> None:
    stop_half_way(source, output)
    with pytest.raises(JobError, match="model was hash and is another"):
        run(job(source, output), model="another")


def test_another_column_is_not_gone_on_with(source: Path, output: Path) -> None:
    source.write_text('{"text":"a","title":"b"}\n' * 10)
    stop_half_way(source, output)
    with pytest.raises(JobError, match="column was text and is title"):
        run(with_options(job(source, output), column="title"))
    assert run(with_options(job(source, output), column="text")).resumed_at == 6


def test_an_input_that_changes_meanwhile_is_noticed(source: Path, output: Path) -> None:
    def embed(texts: list[str]) -> Rows:
        os.utime(source, ns=(1, 1))
        return hash_rows(texts)

    with pytest.raises(JobError, match="was changed during the job: the input's time of change differs"):
        run(job(source, output), embed)
    assert not output.exists()


def test_a_job_that_only_had_not_tidied_up_is_finished(source: Path, output: Path) -> None:
    stop_half_way(source, output)
    with Workspace(output, DIMENSIONS) as space:
        with space.result() as out:
            out.write(b"the result")
        (space.folder / "output").rename(output)
    rest, heard = Stops(0), Heard()
    assert run(job(source, output), rest, heard=heard).records == 10
    assert output.read_bytes() == b"the result"
    assert heard.said == ["an earlier run had finished; nothing was left to do"]
    assert not space.folder.exists()


def test_remains_of_a_finished_job_do_not_stand_in_the_way_of_another(source: Path, output: Path) -> None:
    stop_half_way(source, output)
    with Workspace(output, DIMENSIONS) as space:
        with space.result() as out:
            out.write(b"the result")
        (space.folder / "output").rename(output)
    other = with_options(job(source, output), overwrite=True)
    assert run(other, model="another").resumed_at == 0
    assert vectors_of(output) == expected(list(TEXTS))


def test_all_faults_are_found_before_any_work(source: Path, output: Path) -> None:
    source.write_text('{"text":"a"}\n{"text":""}\nbroken\n' + '{"text":null}\n' * 7)
    model = Stops(0)
    with pytest.raises(JobError) as caught:
        run(job(source, output), model)
    told = str(caught.value)
    assert told.startswith("9 of 10 rows can not be embedded")
    assert "in.jsonl, line 2: the text is empty; in.jsonl, line 3: not JSON" in told
    assert told.endswith("and 4 more")
    assert model.seen == []
    assert list(output.parent.iterdir()) == [source]


FAULTY = '{"id":1,"text":"a"}\n{"id":2,"text":""}\nbroken\n{"id":4,"text":"bad"}\n{"id":5,"text":"b"}\n'


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_faulty_rows_can_be_kept(source: Path, output: Path, suffix: str) -> None:
    source.write_text(FAULTY)
    output = output.with_suffix(suffix)
    summary = run(with_options(job(source, output), on_error=OnError.NULL), refuse("bad"))
    assert (summary.records, summary.without) == (5, 3)
    assert vectors_of(output) == expected(["a", None, None, None, "b"])
    assert [row.get("id") for row in rows_of(output)] == [1, 2, None, 4, 5]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_faulty_rows_can_be_left_out(source: Path, output: Path, suffix: str) -> None:
    source.write_text(FAULTY)
    output = output.with_suffix(suffix)
    summary = run(with_options(job(source, output), on_error=OnError.SKIP), refuse("bad"))
    assert (summary.records, summary.without) == (5, 3)
    assert vectors_of(output) == expected(["a", "b"])
    assert [row["id"] for row in rows_of(output)] == [1, 5]


def test_faulty_rows_in_npy(source: Path, output: Path) -> None:
    source.write_text(FAULTY)
    output = output.with_suffix(".npy")
    run(with_options(job(source, output), on_error=OnError.NULL), refuse("bad"))
    assert np.isnan(np.load(output)).all(axis=1).tolist() == [False, True, True, True, False]
    run(with_options(job(source, output), on_error=OnError.SKIP, overwrite=True), refuse("bad"))
    assert np.array_equal(np.load(output), hash_rows(["a", "b"]))


def test_a_row_that_the_model_refuses_is_named_and_can_be_skipped_in_the_next_run(source: Path, output: Path) -> None:
    with pytest.raises(JobError, match=r"in\.jsonl, line 8: can not embed 'text 7'"):
        run(job(source, output), refuse("text 7"))
    rest = Stops(99)
    summary = run(with_options(job(source, output), on_error=OnError.SKIP), rest)
    assert rest.seen == TEXTS[6:]
    assert summary.resumed_at == 6


def test_rows_left_without_a_vector_are_not_silently_kept_by_a_stricter_run(source: Path, output: Path) -> None:
    def embed(texts: list[str]) -> Rows:
        if "text 7" in texts:
            raise BackendFailed("gone")
        return refuse("text 1")(texts)

    with pytest.raises(BackendFailed):
        run(with_options(job(source, output), on_error=OnError.NULL), embed)
    with pytest.raises(JobError, match=r"line 2: it got no vector in an earlier run; see --on-error"):
        run(job(source, output))
    assert run(with_options(job(source, output), on_error=OnError.NULL)).without == 1


def test_an_unknown_type_of_column_is_reported_before_any_work(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    source = tmp_path / "in.parquet"
    maps = pa.array([[(1, 2)]], pa.map_(pa.int32(), pa.int32()))
    parquet.write_table(pa.table({"text": ["a"], "map": maps}), source)
    model = Stops(0)
    with pytest.raises(JobError, match=r"a column has no JSON form: .*Map"):
        run(job(source, tmp_path / "out.jsonl"), model)
    assert run(job(source, tmp_path / "out.parquet")).records == 1


def test_the_vectors_column_can_be_named(source: Path, output: Path) -> None:
    source.write_text('{"text":"a","embedding":"taken"}\n')
    with pytest.raises(JobError, match="line 1 already has a column 'embedding'"):
        run(job(source, output))
    run(with_options(job(source, output), output_column="v"))
    assert vectors_of(output, "v") == expected(["a"])


def test_a_npy_takes_no_column_names_so_none_clash(source: Path, output: Path) -> None:
    source.write_text('{"text":"a","embedding":"taken"}\n')
    assert run(job(source, output.with_suffix(".npy"))).records == 1


def changed(source: Path, output: Path, **changes: Any) -> Any:
    return with_options(job(source, output), **changes)


def test_what_can_be_told_without_a_model(source: Path, tmp_path: Path) -> None:
    good = job(source, tmp_path / "out.jsonl")
    check_job(good)
    for changes, told in (
        ({"output": tmp_path / "none" / "out.jsonl"}, "does not exist"),
        ({"output": tmp_path}, "is not a file"),
        ({"output": source}, "is the input"),
        ({"source": file_source(tmp_path / "none.jsonl")}, r"can not read none\.jsonl"),
        ({"source": write_source(tmp_path / "b.csv", b"a,b\n1,2\n"), "input_format": "csv"}, "--column"),
    ):
        with pytest.raises(JobError, match=told):
            check_job(with_options(good, **changes))


def write_source(path: Path, data: bytes) -> Source:
    path.write_bytes(data)
    return file_source(path)


def test_a_folder_where_nothing_can_be_written_is_a_job_error(source: Path) -> None:
    if os.geteuid() == 0:
        folder = Path("/proc")
    else:
        folder = source.parent / "closed"
        folder.mkdir(mode=0o500)
    with pytest.raises(JobError, match=r"out\.npy\.tandem-job"):
        run(job(source, folder / "out.npy"))


def test_a_full_disk_keeps_what_is_done(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes, real = [0], os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        writes[0] += 1
        if writes[0] == 3:
            real(descriptor, bytes(data)[:7], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    heard = Heard()
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        with pytest.raises(JobError, match=r"no space left for .*: free some"):
            run(job(source, output), heard=heard)
    assert heard.said == ["stopped: 6 of 10 texts are saved; run the same command again to go on"]
    assert run(job(source, output)).resumed_at == 6
    assert vectors_of(output) == expected(list(TEXTS))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", [".jsonl", ".npy", ".parquet"])
def test_a_disk_that_is_full_at_the_end_costs_no_vector(source: Path, output: Path, suffix: str) -> None:
    output = output.with_suffix(suffix)
    heard, folder = Heard(), output.with_name(f"{output.name}.tandem-job")

    def embed(texts: list[str]) -> Rows:
        if not (folder / "output").is_symlink():
            (folder / "output").symlink_to("/dev/full")
        return hash_rows(texts)

    with pytest.raises(JobError, match="no space left for"):
        run(job(source, output), embed, heard=heard)
    assert heard.said == ["stopped: 10 of 10 texts are saved; run the same command again to go on"]
    rest = Stops(0)
    assert run(job(source, output), rest).resumed_at == 10
    assert vectors_of(output) == expected(list(TEXTS))


def test_a_job_of_another_version_is_not_thrown_away(source: Path, output: Path) -> None:
    folder = output.with_name("out.jsonl.tandem-job")
    folder.mkdir()
    (folder / "journal").write_text('{"plan":{"terms":"of a later version"}}\n')
    with pytest.raises(JobError, match="is not understood"):
        run(job(source, output))
    assert (folder / "journal").exists()
    assert run(with_options(job(source, output), restart=True)).records == 10


def test_little_space_is_told_early(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    heard = Heard()
    run(job(source, output), heard=heard)
    assert any("of disk" in message for message in heard.said)


def test_a_stream_writes_as_it_goes(source: Path) -> None:
    out = io.BytesIO()
    lines_at_call: list[int] = []

    def embed(texts: list[str]) -> Rows:
        lines_at_call.append(out.getvalue().count(b"\n"))
        return hash_rows(texts)

    options = with_options(job(source, source), output=None, output_format="jsonl", stdout=out)
    assert run(options, embed).records == 10
    assert lines_at_call == [0, 3, 6, 9]
    assert out.getvalue().count(b"\n") == 10
