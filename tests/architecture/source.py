"""A Python source tree, parsed once, and the imports in it: static, lazy, and by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

TARGET = r"(?P<module>{package}(\.\w+)*)(:(?P<attribute>\w+(\.\w+)*))?"


@dataclass(frozen=True)
class Import:
    """One module naming another. ``names`` are what was taken from it, empty for the module itself."""

    target: str
    line: int
    names: tuple[str, ...] = ()
    registered: bool = False
    """By a string, "package.module:attribute", as registries and command tables hold them."""


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    text: str
    tree: ast.Module = field(repr=False)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def where(self, node_or_line: ast.AST | int) -> str:
        line = node_or_line if isinstance(node_or_line, int) else getattr(node_or_line, "lineno", 0)
        return f"{self.name}:{line}"


@dataclass(frozen=True)
class SourceTree:
    """The package in folder ``root``; its name is the folder's."""

    root: Path
    modules: dict[str, Module] = field(repr=False)

    @classmethod
    def read(cls, root: Path) -> SourceTree:
        """Parse every ``*.py`` under ``root``."""
        modules = {}
        for path in sorted(root.rglob("*.py")):
            parts = (root.name, *path.relative_to(root).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            modules[name] = Module(name, path, text, ast.parse(text, str(path)))
        return cls(root, modules)

    @property
    def package(self) -> str:
        return self.root.name

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def imports(self, module: Module) -> Iterator[Import]:
        """What ``module`` imports of this tree, at any depth, under TYPE_CHECKING and by registered name too."""
        for node in module.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if self._is_ours(alias.name):
                        yield Import(self._existing(alias.name), node.lineno)
            elif isinstance(node, ast.ImportFrom):
                yield from self._imports_from(module, node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from self._registration(node.value, node.lineno)

    def _imports_from(self, module: Module, node: ast.ImportFrom) -> Iterator[Import]:
        base = node.module or ""
        if node.level:
            parts = module.name.split(".")
            kept = len(parts) - node.level + (1 if module.is_package else 0)
            base = ".".join([*parts[:kept], *([base] if base else [])])
        if not self._is_ours(base):
            return
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            if inner in self.modules:
                yield Import(inner, node.lineno)
            else:
                yield Import(self._existing(base), node.lineno, (alias.name,))

    def _registration(self, text: str, line: int) -> Iterator[Import]:
        match = re.fullmatch(TARGET.format(package=self.package), text)
        if match is None:
            return
        name, attribute = match["module"], match["attribute"]
        # A dotted word without an attribute may be a logger's or a metric's name: it counts when it is a module's.
        if attribute or (name in self.modules and name != self.package):
            yield Import(name, line, (attribute,) if attribute else (), registered=True)

    def _is_ours(self, name: str) -> bool:
        return name == self.package or name.startswith(f"{self.package}.")

    def _existing(self, name: str) -> str:
        """The module that holds ``name``: itself, or the longest existing prefix; ``name`` where nothing exists."""
        candidate = name
        while candidate not in self.modules and "." in candidate:
            candidate = candidate.rpartition(".")[0]
        return candidate if candidate in self.modules and candidate != self.package else name


def outside_imports(module: Module) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(module, line, names) of every absolute import in ``module``, whatever package it is from."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, ()
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno, tuple(alias.name for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for a chain of names, "" for anything else; a subscript or call at the end is looked through."""
    if isinstance(node, ast.Subscript):
        return dotted(node.value)
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""
