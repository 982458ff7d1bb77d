"""What moves through the scheduler: a text as an item, a request as a group of items, a batch of them."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.batching.packing import arrange, fill
from tandem.types import Output, Packing, Priority, TokenBatch, TokenIds


class Group:
    """One request while it is under way: its rows fill up as batches end, and its future is set by the last.

    ``rows[i]`` is item i's row, or its [length, hidden] array for ``Output.TOKENS``. A group is used by the event
    loop's thread alone.
    """

    __slots__ = ("deadline_s", "future", "infer_s", "output", "pending", "priority", "queue_s", "rows")

    def __init__(self, n: int, future: Future[None], priority: Priority, output: Output) -> None:
        self.future = future
        self.priority = priority
        self.output = output
        self.deadline_s: float | None = None
        self.pending = n
        self.rows: list[NDArray[np.float32] | None] = [None] * n
        self.queue_s = 0.0
        self.infer_s = 0.0

    @property
    def departed(self) -> bool:
        """Nobody waits for it any more: the caller left, or one of its items failed."""
        return self.future.done()

    def settle(self, index: int, row: NDArray[np.float32], queue_s: float, infer_s: float) -> None:
        """Item ``index`` is computed; the group's future is set when it was the last."""
        self.rows[index] = row
        self.queue_s += queue_s
        self.infer_s += infer_s
        self.pending -= 1
        if not self.pending and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Item:
    """One text in the queue. ``rank`` is the time at which its turn comes; ``skip``, the leading tokens that pooling
    leaves out; ``sequence``, its number in the window; ``taken``, whether it has left it."""

    __slots__ = ("arrived_s", "group", "ids", "index", "length", "rank", "sequence", "skip", "taken")

    def __init__(self, group: Group, index: int, ids: TokenIds, skip: int) -> None:
        self.group = group
        self.index = index
        self.ids = ids
        self.length = len(ids)
        self.skip = skip
        self.rank = 0.0
        self.sequence = 0
        self.arrived_s = 0.0
        self.taken = False


def packing_of(packing: Packing, output: Output) -> Packing:
    """The packing of a device's batches for that output: rows of several texts are for pooled output alone."""
    return Packing.ONE_A_ROW if output is Output.TOKENS and packing is Packing.ROWS else packing


class Batch(msgspec.Struct, frozen=True):
    """Items that run together; padded to ``width`` tokens, where rows are not packed."""

    items: Sequence[Item]
    width: int
    output: Output

    @property
    def tokens(self) -> int:
        return sum(item.length for item in self.items)

    def halves(self) -> tuple[Batch, Batch]:
        """The batch as two, for the texts that share one with a bad text."""
        middle = len(self.items) // 2
        return (
            Batch(self.items[:middle], self.width, self.output),
            Batch(self.items[middle:], self.width, self.output),
        )

    def arrays(self, pad_id: int, packing: Packing, max_width: int) -> TokenBatch:
        """What a device of that packing runs. ``max_width``: the widest row that the model takes."""
        lengths = [item.length for item in self.items]
        layout = arrange(lengths, packing_of(packing, self.output), self.width, max_width)
        skips = [item.skip for item in self.items]
        return TokenBatch(
            ids=fill(layout, (item.ids for item in self.items), pad_id),
            lengths=np.array(lengths, np.int32),
            places=np.array(layout.starts, np.int32),
            skips=np.array(skips, np.int32) if any(skips) else None,
            output=self.output,
        )
