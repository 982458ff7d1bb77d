from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tandem.bulk.base import Position
from tandem.bulk.journal import Identity, Plan, Survey, Terms, Workspace
from tandem.errors import JobError
from tandem.types import Rows

PLAN = Plan(Terms(Identity(1, 2, "a", "b"), {"model": "m"}), Survey(9, 0, "text", None, 10))


def some_rows(n: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal((n, 2)).astype(np.float32)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.npy"


def test_what_was_committed_is_there_for_the_next_run(output: Path) -> None:
    rows = some_rows(5)
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        space.commit(0, rows[:3], Position(3, 30, 4))
        space.commit(3, rows[3:], Position(5, 50, 6))
    with Workspace(output, 2) as space:
        assert space.plan == PLAN
        assert space.done == Position(5, 50, 6)
        assert np.array_equal(space.rows(1, 4), rows[1:])


def test_a_journal_cut_anywhere_is_a_prefix_of_the_job(output: Path) -> None:
    """A power cut may leave any part of the last line, or of several that were never synced."""
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        for batch in range(3):
            space.commit(batch, some_rows(1, batch), Position(batch + 1, 10 * batch, batch))
    journal = space.folder / "journal"
    whole = journal.read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    cuts = {*range(0, len(whole), 17), *(end + step for end in ends for step in (-1, 0, 1)), len(whole)}
    for cut in sorted(cuts):
        journal.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        with Workspace(output, 2) as again:
            assert (again.plan == PLAN) == (lines > 0)
            assert again.done.records == max(lines - 1, 0)
            if again.plan is not None:
                again.commit(again.done.records, some_rows(1), Position(99, 0, 0))
        if lines:
            with Workspace(output, 2) as last:
                assert last.done.records == 99
        else:
            space.folder.mkdir()  # Nothing to go on with, so nothing was left.


def test_a_line_that_is_not_a_journals_ends_it(output: Path) -> None:
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        space.commit(0, some_rows(1), Position(1, 10, 2))
    with (space.folder / "journal").open("ab") as file:
        file.write(b'\x00\x00\x00\n{"done":{"records":7,"offset":1,"line":1}}\n')
    with Workspace(output, 2) as again:
        assert again.done.records == 1


def test_rows_that_the_journal_does_not_speak_of_are_written_over(output: Path) -> None:
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        space.commit(0, some_rows(2), Position(2, 20, 3))
    with (space.folder / "vectors").open("ab") as file:
        file.write(b"half a row, and more of what a crash may leave")
    with Workspace(output, 2) as again:
        again.commit(2, some_rows(2, 7), Position(4, 40, 5))
        assert np.array_equal(again.rows(0, 4), np.concatenate([some_rows(2), some_rows(2, 7)]))


def test_vectors_that_have_gone_are_an_error(output: Path) -> None:
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        space.commit(0, some_rows(2), Position(2, 20, 3))
    (space.folder / "vectors").write_bytes(b"")
    with Workspace(output, 2) as again, pytest.raises(JobError, match="damaged"):
        again.rows(0, 2)


def test_a_second_job_on_the_same_output_is_refused(output: Path) -> None:
    with (
        Workspace(output, 2),
        pytest.raises(JobError, match=r"another job is writing .*out\.npy"),
        Workspace(output, 2),
    ):
        pytest.fail("two jobs at once")
    with Workspace(output, 2):
        assert True  # The first has ended, so the next may begin.


def test_a_folder_without_a_plan_is_not_left_behind(output: Path) -> None:
    with Workspace(output, 2) as space:
        assert space.folder.is_dir()
    assert list(output.parent.iterdir()) == []


def test_what_is_the_users_is_not_removed(output: Path) -> None:
    with Workspace(output, 2) as space:
        (space.folder / "notes.txt").write_text("mine")
    assert (space.folder / "notes.txt").read_text() == "mine"


def test_a_result_appears_whole_and_ends_the_job(output: Path) -> None:
    output.write_bytes(b"old")
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        with space.result() as out:
            out.write(b"new")
            assert output.read_bytes() == b"old"
        assert space.has_result
        assert not space.is_over
        space.publish()
        assert output.read_bytes() == b"new"
    assert list(output.parent.iterdir()) == [output]


def write_half(space: Workspace) -> None:
    with space.result() as out:
        out.write(b"half")
        raise KeyboardInterrupt


def test_half_a_result_is_not_kept(output: Path) -> None:
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        with pytest.raises(KeyboardInterrupt):
            write_half(space)
        assert not (space.folder / "output").exists()
        assert not space.has_result
    with Workspace(output, 2) as again:
        assert again.plan == PLAN


def test_a_result_that_waits_is_seen_by_the_next_run(output: Path) -> None:
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        with space.result() as out:
            out.write(b"new")
    with Workspace(output, 2) as again:
        assert again.has_result
        (again.folder / "output").rename(output)  # What publish does, as if a crash came right after.
    with Workspace(output, 2) as last:
        assert last.is_over


def test_forgetting_starts_from_nothing(output: Path) -> None:
    with Workspace(output, 2) as space:
        space.begin(PLAN)
        space.commit(0, some_rows(2), Position(2, 20, 3))
        space.forget()
        space.begin(PLAN)
    with Workspace(output, 2) as again:
        assert again.plan == PLAN
        assert again.done == Position()


def test_a_folder_that_is_not_understood_is_left_alone(output: Path) -> None:
    folder = output.with_name("out.npy.tandem-job")
    folder.mkdir()
    (folder / "journal").write_bytes(b'{"plan":{"terms":"of a later version"}}\n{"done":7}\n')
    (folder / "vectors").write_bytes(b"days of work")
    with Workspace(output, 2) as space:
        assert space.is_foreign
        assert space.plan is None
    assert (folder / "journal").stat().st_size > 40
    assert (folder / "vectors").read_bytes() == b"days of work"
    with Workspace(output, 2) as space:
        space.forget()
    assert not folder.exists()


def test_a_folder_that_can_not_be_made_is_a_job_error(tmp_path: Path) -> None:
    (tmp_path / "out.npy.tandem-job").write_text("a file of the same name")
    with pytest.raises(JobError, match="tandem-job"), Workspace(tmp_path / "out.npy", 2):
        pytest.fail("there is no folder to work in")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.write_bytes(b"longer than before"), "size was 6 bytes and is 18"),
        (lambda path: path.write_bytes(b"beforf"), "content has changed"),
        (lambda path: path.touch(), "time of change"),
    ],
)
def test_a_file_that_changed_is_noticed(tmp_path: Path, change: object, told: str) -> None:
    import os

    path = tmp_path / "in.txt"
    path.write_bytes(b"before")
    os.utime(path, ns=(0, 1))
    before = Identity.of(path)
    assert before.differences(Identity.of(path)) == []
    assert callable(change)
    change(path)
    (difference,) = before.differences(Identity.of(path))
    assert told in difference


def test_terms_tell_what_differs() -> None:
    one = Terms(Identity(1, 2, "a", "b"), {"model": "m", "prompt": "query"})
    other = Terms(Identity(1, 2, "a", "b"), {"model": "n"})
    assert one.differences(one) == []
    assert one.differences(other) == ["model was m and is n", "prompt was query and is not given"]
    newer = Terms(one.input, one.settings, one.version + 1)
    assert one.differences(newer) == ["the form of a job on disk was 1 and is 2"]
