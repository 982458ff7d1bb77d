from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tandem.bulk.base import Batch, Position
from tandem.bulk.pipeline import Embedding, embed_batch, read_ahead
from tandem.bulk.txt import TxtRecords
from tandem.errors import BackendFailed, InvalidInput, JobError, TextTooLong
from tandem.types import Rows
from tests.unit.bulk.jobs import DIMENSIONS, hash_rows, refuse


def batch_of(texts: list[str | None]) -> Batch:
    reasons = {index: "the text is null" for index, text in enumerate(texts) if text is None}
    return Batch(texts, reasons, range(1, len(texts) + 1), TxtRecords("text", texts), Position(len(texts)))


def test_reading_ahead_keeps_the_order() -> None:
    assert list(read_ahead(iter(range(100)))) == list(range(100))
    assert list(read_ahead(iter([]))) == []


def test_reading_ahead_stays_bounded() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    ahead = read_ahead(items(), depth=2)
    for wanted in range(50):
        assert next(ahead) == wanted
        assert len(made) <= wanted + 4
    del ahead
    assert len(made) < 60


def test_an_error_of_the_reader_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise JobError("line 2 is broken")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(JobError, match="line 2"):
        next(ahead)


def test_rows_without_a_text_get_nan_and_the_model_does_not_see_them() -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> Rows:
        seen.extend(texts)
        return hash_rows(texts)

    rows, reasons = embed_batch(batch_of(["a", None, "b"]), Embedding(embed, DIMENSIONS))
    assert seen == ["a", "b"]
    assert reasons == {1: "the text is null"}
    assert np.isnan(rows[1]).all()
    assert np.array_equal(rows[[0, 2]], hash_rows(["a", "b"]))


def test_a_reason_does_not_count_inputs_within_the_row() -> None:
    def embed(texts: list[str]) -> Rows:
        for index, text in enumerate(texts):
            if text == "long":
                raise TextTooLong(f"input {index} has 402 tokens", index=index)
        return hash_rows(texts)

    _, reasons = embed_batch(batch_of(["a", "b", "long"]), Embedding(embed, DIMENSIONS))
    assert reasons == {2: "the text has 402 tokens"}


def test_a_batch_without_texts_does_not_reach_the_model() -> None:
    rows, reasons = embed_batch(batch_of([None, None]), Embedding(refuse(), DIMENSIONS))
    assert np.isnan(rows).all()
    assert set(reasons) == {0, 1}


@pytest.mark.parametrize("refused", [[], [0], [99], [41], [3, 4, 77], list(range(100))])
def test_refused_texts_are_found_and_the_others_are_embedded(refused: list[int]) -> None:
    texts: list[str | None] = [f"text {index}" for index in range(100)]
    embed = refuse(*(f"text {index}" for index in refused))
    rows, reasons = embed_batch(batch_of(texts), Embedding(embed, DIMENSIONS))
    assert sorted(reasons) == refused
    for index in range(100):
        if index in refused:
            assert reasons[index] == f"can not embed 'text {index}'"
            assert np.isnan(rows[index]).all()
        else:
            assert np.array_equal(rows[index], hash_rows([f"text {index}"])[0])


def test_an_error_that_is_no_texts_fault_goes_through() -> None:
    def embed(texts: list[str]) -> Rows:
        raise BackendFailed("the device is gone")

    with pytest.raises(BackendFailed):
        embed_batch(batch_of(["a", "b"]), Embedding(embed, DIMENSIONS))


@pytest.mark.parametrize("wrong", [np.zeros((1, DIMENSIONS)), np.zeros((2, 3)), np.zeros(2), np.full((2, 4), np.inf)])
def test_an_answer_that_can_not_be_right_is_refused(wrong: Rows) -> None:
    with pytest.raises(JobError, match="the model gave"):
        embed_batch(batch_of(["a", "b"]), Embedding(lambda texts: wrong.astype(np.float32), DIMENSIONS))


def test_a_text_too_long_for_the_model_costs_only_itself() -> None:
    calls = 0

    def embed(texts: list[str]) -> Rows:
        nonlocal calls
        calls += 1
        if "bad" in texts:
            raise InvalidInput("too long")
        return hash_rows(texts)

    texts: list[str | None] = [str(index) for index in range(2048)]
    texts[1000] = "bad"
    _, reasons = embed_batch(batch_of(texts), Embedding(embed, DIMENSIONS))
    assert reasons == {1000: "too long"}
    assert calls <= 24
