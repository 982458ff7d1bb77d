"""Frames: what goes in comes out, and nothing else does."""

from __future__ import annotations

import msgspec
import pytest

from tandem.caching.federated_wire import Addition, Announcement, Fault, Manifest, Scope, Wire
from tests.federated_board import SCOPE, key_of

KEY = key_of("a")
ADDITION = Addition(KEY, b"12345678", b"a note")
ADDED = Announcement(ADDITION, b"instance", 1234.5)
REMOVED = Announcement(KEY, b"instance", 0.0)
MANIFEST = Manifest(b"snapshot", (17, 4), 3, 700)
WIRE = Wire(SCOPE)


@pytest.mark.parametrize("announced", [ADDED, REMOVED, Announcement(Addition(KEY, b"12345678"), b"instance", 1.0)])
def test_an_announcement_comes_out_as_it_went_in(announced: Announcement) -> None:
    assert WIRE.read_announcement(WIRE.announcement(announced)) == announced


@pytest.mark.parametrize("additions", [[], [ADDITION], [ADDITION, Addition(key_of("b"), b"abcdefgh")]])
def test_a_chunk_comes_out_as_it_went_in(additions: list[Addition]) -> None:
    assert WIRE.read_chunk(WIRE.chunk(additions), 1000) == additions


def test_a_manifest_and_a_value_come_out_as_they_went_in() -> None:
    assert WIRE.read_manifest(WIRE.manifest(MANIFEST)) == MANIFEST
    assert WIRE.read_value(KEY, WIRE.value(KEY, b"payload"), 7) == b"payload"


def test_an_announcement_of_int8_at_384_dimensions_is_as_long_as_the_page_says() -> None:
    wire = Wire(msgspec.structs.replace(SCOPE, signature_bytes=384))
    assert len(wire.announcement(Announcement(Addition(KEY, bytes(384)), b"instance", 0.0))) == 436


@pytest.mark.parametrize(
    "change", [{"model": "b"}, {"namespace": "b"}, {"codec": "float16"}, {"signature_bytes": 9}], ids=str
)
def test_scopes_that_differ_in_anything_do_not_read_each_other(change: dict[str, str]) -> None:
    other = Wire(msgspec.structs.replace(SCOPE, **change))
    assert other.scope.id() != SCOPE.id()
    assert other.read_announcement(WIRE.announcement(ADDED)) is Fault.FOREIGN
    assert other.read_chunk(WIRE.chunk([ADDITION]), 1000) is Fault.FOREIGN
    assert other.read_manifest(WIRE.manifest(MANIFEST)) is Fault.FOREIGN
    assert other.read_value(KEY, WIRE.value(KEY, b""), 100) is Fault.FOREIGN


def test_fields_that_read_alike_in_a_row_are_other_scopes() -> None:
    assert Scope(model="ab", namespace="c", codec="int8", signature_bytes=8).id() != (
        Scope(model="a", namespace="bc", codec="int8", signature_bytes=8).id()
    )


def test_who_has_another_secret_is_not_believed() -> None:
    ours, theirs = Wire(SCOPE, secret=b"ours"), Wire(SCOPE, secret=b"theirs")
    assert ours.read_announcement(theirs.announcement(ADDED)) is Fault.CORRUPTED
    assert ours.read_announcement(WIRE.announcement(ADDED)) is Fault.CORRUPTED
    assert ours.read_announcement(ours.announcement(ADDED)) == ADDED


def test_a_value_is_only_found_under_its_own_key() -> None:
    assert WIRE.read_value(key_of("b"), WIRE.value(KEY, b"payload"), 100) is Fault.FOREIGN


def test_one_kind_of_frame_is_not_read_as_another() -> None:
    assert WIRE.read_announcement(WIRE.manifest(MANIFEST)) is Fault.MALFORMED
    assert WIRE.read_chunk(WIRE.announcement(ADDED), 1000) is Fault.MALFORMED


def test_what_is_too_long_is_not_looked_at() -> None:
    short = Wire(SCOPE, note_bytes=5)
    assert short.read_announcement(WIRE.announcement(ADDED)) is Fault.OVERLONG
    assert WIRE.read_value(KEY, WIRE.value(KEY, b"payload"), 6) is Fault.OVERLONG
    assert WIRE.read_chunk(WIRE.chunk([ADDITION]), 20) is Fault.OVERLONG


@pytest.mark.parametrize(
    "what", [b"short", Addition(b"short", bytes(8)), Addition(KEY, bytes(7)), Addition(KEY, bytes(8), bytes(5000))]
)
def test_what_does_not_fit_is_not_sent(what: Addition | bytes) -> None:
    with pytest.raises(ValueError, match="bytes, not"):
        WIRE.announcement(Announcement(what, b"instance", 0.0))


@pytest.mark.parametrize("wall_s", [-5.0, 1e300])
def test_a_calendar_out_of_range_is_no_error(wall_s: float) -> None:
    read = WIRE.read_announcement(WIRE.announcement(Announcement(KEY, b"instance", wall_s)))
    assert isinstance(read, Announcement)
