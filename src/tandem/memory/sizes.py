"""Size classes: eight to a doubling.

A block is at most an eighth larger than what was asked, 6 % on average over even sizes. Four to a doubling waste twice
that and sixteen half of it, but twice the classes are twice the blocks that lie ready for sizes nobody asks for now.
Powers of two, the common choice, waste up to half. Exact sizes waste nothing and never meet again: the ids of a batch
have a different size almost every time.
"""

from __future__ import annotations

STEPS_LOG2 = 3


def class_bytes(nbytes: int, alignment: int) -> int:
    """The smallest class that holds ``nbytes`` >= 0: a multiple, at least one, of ``alignment``, a power of two."""
    step_log2 = max((nbytes - 1).bit_length() - 1 - STEPS_LOG2, alignment.bit_length() - 1)
    return max(-(-nbytes >> step_log2) << step_log2, alignment)
