"""From batches in any layout to blocks of whole numbers, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.backends.torch_packing import Frame, fill, pack, unpack_rows, unpack_states
from tandem.batching.packing import arrange
from tandem.types import Packing, TokenBatch

lengths_of_texts = st.lists(st.integers(1, 24), min_size=1, max_size=20)


def made(lengths: list[int], packing: Packing) -> tuple[TokenBatch, list[list[int]]]:
    """A batch in a layout, and its texts; 99 is padding."""
    rng = np.random.default_rng(len(lengths))
    texts = [[int(i) for i in rng.integers(0, 50, length)] for length in lengths]
    layout = arrange(lengths, packing, max(lengths), 24)
    ids = np.full(layout.rows * layout.width, 99, np.int32)
    for text, start in zip(texts, layout.starts, strict=True):
        ids[start : start + len(text)] = text
    places = np.array(layout.starts, np.int32)
    return TokenBatch(ids.reshape(layout.rows, layout.width), np.array(lengths, np.int32), places=places), texts


@given(lengths_of_texts, st.sampled_from(Packing), st.booleans())
def test_every_layout_holds_the_same_tokens(lengths: list[int], packing: Packing, by_length: bool) -> None:
    batch, texts = made(lengths, packing)
    packed = pack(batch, by_length=by_length)
    order = range(len(texts)) if packed.order is None else packed.order.tolist()
    expected = [texts[index] for index in order]
    assert packed.ids.tolist() == [token for text in expected for token in text]
    assert packed.longest == max(lengths)
    if by_length:
        assert packed.lengths.tolist() == sorted(lengths)


def test_a_flat_batch_is_not_copied() -> None:
    batch, _ = made([3, 5, 2], Packing.FLAT)
    assert pack(batch).places is None
    assert np.shares_memory(pack(batch).ids, batch.ids)


@given(lengths_of_texts, st.sampled_from(Packing), st.booleans())
def test_results_come_back_where_the_texts_were(lengths: list[int], packing: Packing, by_length: bool) -> None:
    batch, texts = made(lengths, packing)
    packed = pack(batch, by_length=by_length)
    states = packed.ids.astype(np.float32)[:, None]
    found = unpack_states(states, packed, batch)
    assert found.shape == (*batch.ids.shape, 1)
    for text, start in zip(texts, batch.starts().tolist(), strict=True):
        assert found.ravel()[start : start + len(text)].tolist() == text
    rows = unpack_rows(states[packed.ends[:-1]], packed)
    assert rows.ravel().tolist() == [text[0] for text in texts]


@pytest.mark.parametrize("room", [(0, 0), (7, 3)])
def test_a_block_says_where_texts_lie(room: tuple[int, int]) -> None:
    batch = TokenBatch(
        np.array([[7, 8, 9, 5, 6]], np.int32),
        np.array([3, 2], np.int32),
        np.array([1, 9], np.int32),
        places=np.array([0, 3], np.int32),
    )
    frame = Frame(5 + room[0], 2 + room[1])
    block = np.full(frame.size, -1, np.int32)
    fill(block, frame, pack(batch))
    ids, positions, ends, first, last, edges = (block[part].tolist() for part in frame.parts())
    more_tokens, more_texts = [0] * room[0], [0] * room[1]
    assert ids == [7, 8, 9, 5, 6, *more_tokens]
    assert positions == [0, 1, 2, 0, 1, *more_tokens]
    assert ends == [0, 3, 5, *([5] * room[1])], "texts that are not there end with the last one"
    assert first == [1, 4, *more_texts], "a prompt that fills its text leaves the last token"
    assert last == [2, 4, *more_texts]
    assert edges == [0, 1, 3, 4, 5, *([5] * 2 * room[1])]


@given(st.integers(1, 5000), st.integers(1, 400))
def test_a_frame_has_room_for_its_parts(tokens: int, texts: int) -> None:
    frame = Frame(tokens, texts)
    assert frame.size >= frame.parts()[-1].stop
    assert frame.size % 16 == 0
