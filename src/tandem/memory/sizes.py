"""How much a block has beside what was asked for: at most an eighth.

Small blocks come in classes, eight to a doubling, so that what one request gives back fits the next. Four to a
doubling waste twice as much; powers of two, the common choice, up to half. Large ones are cut to size, in steps that
keep slivers out of the books: classes of them, kept ready, cost far more memory than they save time (docs/memory.md).
"""

from __future__ import annotations

SMALL_BYTES = 4096
"""Up to here blocks have classes: lengths, places and the ids of small batches."""

_STEPS_LOG2 = 3
_STEP_BYTES = SMALL_BYTES >> _STEPS_LOG2


def block_bytes(nbytes: int, alignment: int) -> int:
    """The size of the block for ``nbytes`` >= 0: a multiple, at least one, of ``alignment``, a power of two."""
    if nbytes > SMALL_BYTES:
        step = max(_STEP_BYTES, alignment)
        return (nbytes + step - 1) // step * step
    step_log2 = max((nbytes - 1).bit_length() - 1 - _STEPS_LOG2, alignment.bit_length() - 1)
    return max(-(-nbytes >> step_log2) << step_log2, alignment)
