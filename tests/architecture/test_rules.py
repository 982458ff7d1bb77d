"""The rules of this folder, applied to the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.architecture import budgets, floors, habits, writing
from tests.architecture.source import SourceTree
from tests.conftest import REPOSITORY

Rule = Callable[[SourceTree], Iterator[str]]

RULES: tuple[Rule, ...] = (
    floors.floors,
    floors.one_level,
    floors.cycles,
    floors.registrations,
    floors.dynamic_imports,
    budgets.file_lines,
    budgets.function_lines,
    budgets.class_size,
    budgets.constructor_parameters,
    budgets.exports,
    habits.protocols_not_abc,
    habits.silent_except,
    habits.broad_except,
    habits.keyword_catch_alls,
    habits.inheritance,
    habits.one_clock,
    habits.seeded_chance,
    habits.no_torch,
    habits.no_telemetry,
)

TEST_RULES: tuple[Rule, ...] = (budgets.file_lines_ever, writing.no_mocks, writing.no_sleeps)


@pytest.fixture(scope="module")
def source() -> SourceTree:
    return SourceTree.read(REPOSITORY / "src" / "tandem")


@pytest.fixture(scope="module")
def tests_tree() -> SourceTree:
    return SourceTree.read(REPOSITORY / "tests")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Rule, source: SourceTree) -> None:
    breaches = list(rule(source))
    assert not breaches, "\n".join([str(rule.__doc__), *breaches])


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_the_tests_keep(rule: Rule, tests_tree: SourceTree) -> None:
    breaches = list(rule(tests_tree))
    assert not breaches, "\n".join([str(rule.__doc__), *breaches])


def test_exceptions_from_the_rules_are_still_needed(source: SourceTree) -> None:
    """An entry that nothing uses any more is a hole in the rule."""
    broad = {module.name for module in source if any(habits.catches_all(node) for node in module.nodes)}
    assert habits.BROAD_EXCEPT.keys() <= broad
    long = {module.name for module in source if module.lines > budgets.FILE_LINES}
    assert budgets.LONG_FILES.keys() <= long
