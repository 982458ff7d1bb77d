from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from tandem.backends.child_process import environment
from tandem.backends.fake import FakeBackend, FakeOptions
from tandem.types import Output
from tests.engines import batch_of


def test_time_follows_its_model() -> None:
    slept: list[float] = []
    backend = FakeBackend(FakeOptions(fixed_s=0.5, token_s=0.01), slept.append)
    backend.run(batch_of([[1, 2, 3], [4]]))
    assert slept == [pytest.approx(0.5 + 6 * 0.01)]


def test_no_time_is_no_sleep() -> None:
    slept: list[float] = []
    FakeBackend(sleep=slept.append).run(batch_of([[1]]))
    assert slept == []


def test_rows_are_sums_of_the_tokens_that_count() -> None:
    backend = FakeBackend()
    tokens = backend.run(batch_of([[1, 2, 3], [4, 5]], output=Output.TOKENS))
    rows = backend.run(batch_of([[1, 2, 3], [4, 5]], skips=[1, 0]))
    np.testing.assert_allclose(rows[0], tokens[0, 1:].sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(rows[1], tokens[1, :2].sum(axis=0), atol=1e-6)


def test_poison_fails_a_batch_and_nan_a_row() -> None:
    backend = FakeBackend(FakeOptions(poison=9, nan=8))
    with pytest.raises(RuntimeError, match="token 9 is poison"):
        backend.run(batch_of([[1], [9, 1]]))
    rows = backend.run(batch_of([[1], [8, 1]]))
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


def test_want_of_memory_is_its_own_error() -> None:
    backend = FakeBackend(FakeOptions(memory=9))
    with pytest.raises(MemoryError, match="token 9"):
        backend.run(batch_of([[1], [9, 1]]))
    assert backend.run(batch_of([[1]])).shape == (1, 16)


def test_a_crash_ends_the_process() -> None:
    program = (
        "import numpy as np; from tandem.types import TokenBatch;"
        "from tandem.backends.fake import FakeBackend, FakeOptions;"
        "FakeBackend(FakeOptions(crash=9)).run(TokenBatch(np.full((1, 1), 9, np.int32), np.ones(1, np.int32)))"
    )
    child = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
