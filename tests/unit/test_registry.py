from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tandem.errors import ConfigError
from tandem.registry import Registry


@pytest.fixture
def animals() -> Registry[Callable[[], object]]:
    registry: Registry[Callable[[], object]] = Registry("animal")
    registry.register("list", "builtins:list")
    registry.register("never", "tests.no_such_module:Never")
    return registry


def test_a_name_gives_what_it_was_registered_for(animals: Registry[Callable[[], object]]) -> None:
    assert animals.get("list") is list


def test_names_keep_their_order_and_nothing_is_imported(animals: Registry[Callable[[], object]]) -> None:
    assert animals.names() == tuple(animals) == ("list", "never")
    assert "tests.no_such_module" not in sys.modules


def test_an_unknown_name_is_told_the_known_ones(animals: Registry[Callable[[], object]]) -> None:
    with pytest.raises(ConfigError, match="unknown animal 'dog'; known are: list, never"):
        animals.get("dog")


def test_a_name_is_taken_once(animals: Registry[Callable[[], object]]) -> None:
    with pytest.raises(ConfigError, match="registered twice"):
        animals.register("list", "builtins:tuple")
    assert animals.get("list") is list


def test_what_can_not_be_imported_says_so_when_asked_for(animals: Registry[Callable[[], object]]) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        animals.get("never")
