"""What all bodies together may hold."""

from __future__ import annotations

import pytest

from tandem.errors import Overloaded
from tandem.server.request import BodyPool


def test_bodies_share_a_limit_and_give_back_what_they_took() -> None:
    pool = BodyPool(10)
    pool.take(6)
    with pytest.raises(Overloaded) as full:
        pool.take(5)
    assert full.value.retry_after_s == 1.0
    pool.give_back(5)
    pool.take(4)
