"""From a batch to the whole numbers that the packed forward pass reads, in one int32 block: one copy brings them over.

Plain numpy, on the host. A block may have room for more tokens and texts than a batch has (a CUDA graph replays one
shape); then the places left over belong to no text, and nothing that is read comes from them.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.types import TokenBatch

Ints = NDArray[np.int32]


class Packed(msgspec.Struct, frozen=True):
    """A batch's real tokens, one text after the other. t tokens, n texts.

    ``ids`` int32 [t]; ``lengths`` and ``skips`` int32 [n]; ``ends`` int32 [n + 1], with 0 before the first. ``order``:
    the batch's index of each text, None when it is the batch's own order. ``places``: where each token lies in the
    batch's ids, None when they lie there as here.
    """

    ids: Ints
    lengths: Ints
    skips: Ints
    ends: Ints
    longest: int
    order: NDArray[np.intp] | None = None
    places: NDArray[np.int32] | None = None

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> int:
        return len(self.lengths)


class Frame(msgspec.Struct, frozen=True):
    """How a block for ``tokens`` tokens and ``texts`` texts is laid out: ids, positions, ends, first, last, edges."""

    tokens: int
    texts: int

    @property
    def size(self) -> int:
        """In whole numbers, a multiple of 16, so that blocks of neighbouring shapes are of one size class."""
        return -(-(2 * self.tokens + (self.texts + 1) + 2 * self.texts + (2 * self.texts + 1)) // 16) * 16

    def parts(self) -> tuple[slice, ...]:
        """Where each of the six lies."""
        found, start = [], 0
        for length in (self.tokens, self.tokens, self.texts + 1, self.texts, self.texts, 2 * self.texts + 1):
            found.append(slice(start, start + length))
            start += length
        return tuple(found)


def pack(batch: TokenBatch, *, by_length: bool = False) -> Packed:
    """Gather the real tokens; ``by_length``: the shortest text first. A flat batch is taken as it lies."""
    starts, lengths = batch.starts(), batch.lengths
    skips = np.zeros_like(lengths) if batch.skips is None else batch.skips
    order = None
    if by_length and (lengths[1:] < lengths[:-1]).any():
        order = np.argsort(lengths, kind="stable")
        starts, lengths, skips = starts[order], lengths[order], skips[order]
    ends = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    flat, places = batch.ids.ravel(), None
    if flat.size != ends[-1] or (starts != ends[:-1]).any():
        places = np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1], dtype=np.int32)
        flat = flat[places]
    return Packed(flat, lengths, skips, ends, int(lengths.max()), order, places)


def fill(block: Ints, frame: Frame, packed: Packed) -> None:
    """Write a batch into a block int32 [frame.size]. Every number is written, so a block needs no clearing.

    Left-over tokens have id 0 at position 0, left-over texts no tokens at the end of the last.
    """
    ids, positions, ends, first, last, edges = (block[part] for part in frame.parts())
    t, n = packed.tokens, packed.texts
    ids[:t] = packed.ids
    ids[t:] = 0
    np.subtract(np.arange(t, dtype=np.int32), np.repeat(packed.ends[:-1], packed.lengths), out=positions[:t])
    positions[t:] = 0
    ends[: n + 1] = packed.ends
    ends[n + 1 :] = t
    # A prompt that fills its text leaves the last token to pool.
    first[:n] = packed.ends[:-1] + np.minimum(packed.skips, packed.lengths - 1)
    first[n:] = 0
    last[:n] = packed.ends[1:] - 1
    last[n:] = 0
    edges[0 : 2 * n : 2] = packed.ends[:-1]
    edges[1 : 2 * n : 2] = first[:n]
    edges[2 * n :] = t


def unpack_rows(rows: NDArray[np.float32], packed: Packed) -> NDArray[np.float32]:
    """Pooled rows [n, dims] in the batch's own order."""
    if packed.order is None:
        return rows
    found = np.empty_like(rows)
    found[packed.order] = rows
    return found


def unpack_states(states: NDArray[np.float32], packed: Packed, batch: TokenBatch) -> NDArray[np.float32]:
    """Token rows [t, hidden] where the batch's ids lie: [*ids.shape, hidden], padding 0."""
    shape = (*batch.ids.shape, states.shape[1])
    if packed.places is None:
        return states.reshape(shape)
    found = np.zeros(shape, np.float32)
    found.reshape(-1, states.shape[1])[packed.places] = states
    return found
