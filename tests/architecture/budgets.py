"""Rules on size. What wants to grow past its budget holds two things."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.floors import top_level_names
from tests.architecture.source import Module, SourceTree

FILE_LINES, FILE_LINES_EVER = 300, 450
FUNCTION_LINES, FUNCTION_LINES_EVER = 40, 80
SHORT_FUNCTIONS_SHARE = 0.95
CLASS_LINES, CLASS_METHODS = 250, 15
CONSTRUCTOR_PARAMETERS = 6
EXPORTS = 12

# A file over FILE_LINES stands here with the reason why two files would be worse.
LONG_FILES: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def file_lines(tree: SourceTree) -> Iterator[str]:
    """At most 300 lines a file; never over 450, whatever the reason."""
    yield from file_lines_ever(tree)
    for module in tree:
        if FILE_LINES < module.lines <= FILE_LINES_EVER and module.name not in LONG_FILES:
            yield f"{module.name} has {module.lines} lines, over {FILE_LINES}"


def file_lines_ever(tree: SourceTree) -> Iterator[str]:
    """The hard limit alone, for tests."""
    for module in tree:
        if module.lines > FILE_LINES_EVER:
            yield f"{module.name} has {module.lines} lines, over {FILE_LINES_EVER}"


def function_lines(tree: SourceTree) -> Iterator[str]:
    """No function over 80 lines, and 95 of 100 at most 40. Decorators do not count, docstrings do."""
    lengths = [
        (_length(node), module.where(node), node.name)
        for module in tree
        for node in module.nodes
        if isinstance(node, Function)
    ]
    long = sorted((entry for entry in lengths if entry[0] > FUNCTION_LINES), reverse=True)
    for length, where, name in long:
        if length > FUNCTION_LINES_EVER:
            yield f"{where} {name} has {length} lines, over {FUNCTION_LINES_EVER}"
    if lengths and len(long) > (1 - SHORT_FUNCTIONS_SHARE) * len(lengths):
        listed = ", ".join(f"{where} {name} ({length})" for length, where, name in long)
        yield f"{len(long)} of {len(lengths)} functions are over {FUNCTION_LINES} lines: {listed}"


def class_size(tree: SourceTree) -> Iterator[str]:
    """At most 250 lines and 15 methods a class; overloads and a property's setter count once."""
    for module, node in _classes(tree):
        methods = {inner.name for inner in node.body if isinstance(inner, Function)}
        if _length(node) > CLASS_LINES:
            yield f"{module.where(node)} {node.name} has {_length(node)} lines, over {CLASS_LINES}"
        if len(methods) > CLASS_METHODS:
            yield f"{module.where(node)} {node.name} has {len(methods)} methods, over {CLASS_METHODS}"


def constructor_parameters(tree: SourceTree) -> Iterator[str]:
    """At most 6 parameters of ``__init__``; more belong in an options struct, whose fields do not count."""
    for module, node in _classes(tree):
        for inner in node.body:
            if isinstance(inner, Function) and inner.name == "__init__":
                arguments = inner.args
                count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs) - 1
                count += arguments.vararg is not None
                if count > CONSTRUCTOR_PARAMETERS:
                    yield f"{module.where(inner)} {node.name} takes {count} parameters, over {CONSTRUCTOR_PARAMETERS}"


def exports(tree: SourceTree) -> Iterator[str]:
    """The package's root offers at most 12 names."""
    root = tree.modules.get(tree.package)
    if root is None:
        return
    names = _declared_exports(root)
    if names is None:
        names = {name for name in top_level_names(root) if not name.startswith("_")} - {"annotations"}
    if len(names) > EXPORTS:
        yield f"{tree.package} exports {len(names)} names, over {EXPORTS}: {', '.join(sorted(names))}"


def _declared_exports(module: Module) -> set[str] | None:
    for node in module.tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and target.id == "__all__":
            return {str(item.value) for item in ast.walk(node) if isinstance(item, ast.Constant)}
    return None


def _classes(tree: SourceTree) -> Iterator[tuple[Module, ast.ClassDef]]:
    for module in tree:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                yield module, node


def _length(node: Function | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
