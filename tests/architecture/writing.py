"""Rules on how tests are written."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.source import SourceTree, dotted, outside_imports

MOCKS = ("unittest.mock", "mock", "pytest_mock")
SLEEPS = ("time.sleep", "asyncio.sleep", "anyio.sleep")


def no_mocks(tree: SourceTree) -> Iterator[str]:
    """A seam is faked with a function or the fake backend; a mock agrees with whatever it is asked."""
    for module in tree:
        for name, line, names in outside_imports(module):
            if name in MOCKS or (name == "unittest" and "mock" in names):
                yield f"{module.where(line)} imports a mock"


def no_sleeps(tree: SourceTree) -> Iterator[str]:
    """A test waits on a state, not for a while. ``sleep(0)`` is one turn of the event loop; load tests keep a rate."""
    for module in tree:
        if module.name.startswith("tests.stress"):
            continue
        for name, line, names in outside_imports(module):
            if "sleep" in names and f"{name}.sleep" in SLEEPS:
                yield f"{module.where(line)} imports sleep"
        for node in module.nodes:
            if isinstance(node, ast.Call) and dotted(node.func) in SLEEPS:
                argument = node.args[0] if node.args else None
                if not (isinstance(argument, ast.Constant) and argument.value == 0):
                    yield f"{module.where(node)} sleeps"
