"""The contract of a vector index: nearest neighbours by cosine, with incremental change."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tandem.errors import ConfigError, TandemError
from tandem.types import Rows

Ids: TypeAlias = NDArray[np.int64]
"""What the caller calls its rows by; from 0 up."""

Codes: TypeAlias = NDArray[Any]
"""Rows as an index keeps them, [n, d] in the type of its storage; see ``storage.py``."""

Storage: TypeAlias = Literal["int8", "float16", "float32"]

NOTHING = -1
"""Stands for an id where there are fewer neighbours than were asked for; its cosine is -1."""


class VectorIndex(Protocol):
    """Rows by id. Rows need not be of length 1; what is kept and compared is their direction."""

    dims: int

    def __len__(self) -> int: ...

    def add(self, ids: Ids, rows: Rows) -> None:
        """Keep rows float32 [n, d] under ``ids`` int64 [n]; an id that is there is replaced. Raises ValueError for
        shapes that do not fit, negative ids, rows that are not finite or have no direction."""
        ...

    def remove(self, ids: Ids) -> int:
        """Forget them; how many were there."""
        ...

    def search(self, rows: Rows, k: int) -> tuple[Ids, NDArray[np.float32]]:
        """The ``k`` nearest of each row: ids int64 [n, k] and cosines float32 [n, k], the best first. Cosines are
        those of the row given with the row kept, exact but for how it is kept (``storage.py`` has the error)."""
        ...

    def memory_bytes(self) -> int:
        """What it holds."""
        ...


class SnapshotFile(Protocol):
    """What an index is written to."""

    def part(self, name: str, array: NDArray[Any]) -> None:
        """Append a C-contiguous array. Raises OSError."""
        ...


class Index(VectorIndex, Protocol):
    """What the indexes here can do besides: hand over their rows, stay on disk, and end."""

    options: IndexOptions

    def ids(self) -> Ids:
        """All of them, in any order."""
        ...

    def stored(self, ids: Ids) -> tuple[Ids, Codes]:
        """Which of ``ids`` are there, and their rows as they are kept."""
        ...

    def add_stored(self, ids: Ids, codes: Codes) -> None:
        """As ``add``, with rows that another index of the same storage gave out: nothing is rounded twice."""
        ...

    def write(self, file: SnapshotFile, prefix: str = "") -> None:
        """All of it as parts of a snapshot, their names under ``prefix``. ``save_index`` is what users call."""
        ...

    def close(self) -> None:
        """End what runs in the background. Idempotent; what is kept can still be searched and saved."""
        ...


class IndexOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``storage``: how rows are kept. ``connectivity``, ``expansion_add`` and ``expansion_search``: M, efConstruction
    and ef of HNSW (Malkov and Yashunin, arXiv:1603.09320); with 0, ef grows with the rows. ``linear_up_to``: so many
    rows need no graph. ``rebuild_after``: a graph is built anew when rows that were removed or replaced are this share
    of those that are there; by then it takes so much more memory. ``cell_rows``: a cell of a sharded index splits at
    twice as many. ``probes``: how many cells a search looks into. ``background``: whether a thread does this work;
    without, it is done when ``run_pending`` is called."""

    dims: int
    storage: Storage = "int8"
    connectivity: int = 14
    expansion_add: int = 128
    expansion_search: int = 0
    linear_up_to: int = 2048
    rebuild_after: float = 0.2
    cell_rows: int = 50_000
    probes: int = 4
    background: bool = True

    def __post_init__(self) -> None:
        for name in ("dims", "expansion_add", "cell_rows", "probes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"an index's {name} is at least 1, not {getattr(self, name)}")
        if self.connectivity < 2:
            raise ConfigError(f"an index's connectivity is at least 2, not {self.connectivity}")
        for name in ("linear_up_to", "expansion_search"):
            if getattr(self, name) < 0:
                raise ConfigError(f"an index's {name} is at least 0, not {getattr(self, name)}")
        if not self.rebuild_after > 0:
            raise ConfigError(f"an index's rebuild_after is over 0, not {self.rebuild_after:g}")
        if self.storage not in ("int8", "float16", "float32"):
            raise ConfigError(f"an index keeps rows as int8, float16 or float32, not {self.storage!r}")


class SnapshotBroken(TandemError):
    """A snapshot is no snapshot, not whole, of another version or of other rows; the message says which. Whoever gets
    it starts empty."""
