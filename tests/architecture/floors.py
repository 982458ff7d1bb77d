"""Rules on who may import whom. Each rule takes a tree and yields one sentence per breach."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.source import Module, SourceTree, dotted

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"types", "errors", "clock", "registry"}),
    frozenset({"models", "memory", "batching", "quantization", "vectors", "verification", "slo", "telemetry"}),
    frozenset({"backends", "caching", "semantic"}),
    frozenset({"workers", "sharing"}),
    frozenset({"scheduling"}),
    frozenset(
        {"settings", "config", "settings_page", "devices", "build", "fleet", "caches"}
        | {"engine", "admission", "intake", "recall", "errand", "near", "embedder"}
    ),
    frozenset({"server", "bulk", "bench", "simulation", "experiments", "distributed"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
TOP_OF_LIBRARY = 5
"""The package's own ``__init__`` offers the library, so it may import up to this floor."""

# These two are handed a name by a table of strings, and rule `floors` reads those tables.
DYNAMIC_IMPORTERS = frozenset({"tandem.registry", "tandem.cli.main"})


def floors(tree: SourceTree) -> Iterator[str]:
    """Imports go downwards; neighbours on a floor do not know each other; nobody imports the package's root."""
    for module in tree:
        home = _unit(module.name)
        height = _floor(home)
        if height is None:
            yield f"{module.name} is on no floor: give {home!r} one in tests/architecture/floors.py"
            continue
        for found in tree.imports(module):
            target = _unit(found.target)
            where = f"{module.where(found.line)} imports {found.target}"
            if target == "":
                if home and found.names != ("__version__",):
                    yield f"{where}, the root; only __version__ may be taken from it"
                continue
            level = _floor(target)
            if level is None:
                yield f"{where}, which is on no floor"
            elif level > height:
                yield f"{where}: upwards, from floor {height} to {level}"
            elif level == height and home and target != home and not _both_files(tree, home, target):
                yield f"{where}: a neighbour on floor {height}"


def one_level(tree: SourceTree) -> Iterator[str]:
    """A folder under the package holds files, no further packages; folders without Python are data and may be there."""
    for module in tree:
        depth = len(module.path.relative_to(tree.root).parts)
        if depth > 2:
            yield f"{module.path.relative_to(tree.root)} is {depth - 1} folders deep; one is the limit"


def cycles(tree: SourceTree) -> Iterator[str]:
    """No module reaches itself through imports. Registrations do not count: an implementation knows its seam."""
    graph = {
        module.name: sorted(
            {i.target for i in tree.imports(module) if not i.registered and i.names != ("__version__",)}
        )
        for module in tree
    }
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        yield from _walk(start, graph, path, done)


def registrations(tree: SourceTree) -> Iterator[str]:
    """Every "package.module:attribute" names a module that is there and a name that it binds at its top level."""
    for module in tree:
        for found in tree.imports(module):
            if not found.registered or not found.names:
                continue
            target = tree.modules.get(found.target)
            if target is None:
                yield f"{module.where(found.line)} registers {found.target}, which does not exist"
            elif found.names[0].partition(".")[0] not in top_level_names(target):
                yield f"{module.where(found.line)} registers {found.target}:{found.names[0]}, which does not exist"


def dynamic_imports(tree: SourceTree) -> Iterator[str]:
    """A module's name is a literal, so that the rules above can read it, but where a table is the source of names."""
    for module in tree:
        for node in module.nodes:
            if not isinstance(node, ast.Call) or dotted(node.func).rpartition(".")[2] not in (
                "import_module",
                "__import__",
            ):
                continue
            literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
            if not literal and module.name not in DYNAMIC_IMPORTERS:
                yield f"{module.where(node)} imports a computed name; use the registry"


def top_level_names(module: Module) -> set[str]:
    """Names bound by the statements of a module, those under a top-level ``if`` or ``try`` included."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(module.tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.If | ast.Try | ast.With):
            pending += node.body + getattr(node, "orelse", []) + getattr(node, "finalbody", [])
            pending += [inner for handler in getattr(node, "handlers", []) for inner in handler.body]
    return names


def _unit(name: str) -> str:
    """The folder or root file that a module belongs to: "server" for "tandem.server.app", "" for the package."""
    return name.split(".")[1] if "." in name else ""


def _floor(unit: str) -> int | None:
    if unit == "":
        return TOP_OF_LIBRARY
    return next((height for height, units in enumerate(FLOORS) if unit in units), None)


def _both_files(tree: SourceTree, one: str, other: str) -> bool:
    return all(not (tree.root / unit).is_dir() for unit in (one, other))


def _walk(name: str, graph: dict[str, list[str]], path: list[str], done: set[str]) -> Iterator[str]:
    if name in path:
        yield " -> ".join([*path[path.index(name) :], name])
        return
    if name in done or name not in graph:
        return
    path.append(name)
    for target in graph[name]:
        yield from _walk(target, graph, path, done)
    path.pop()
    done.add(name)
