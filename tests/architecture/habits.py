"""Rules on what the code may say: seams, errors, signatures, time, chance, heavy packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch

from tests.architecture.source import Module, SourceTree, dotted, outside_imports

INHERITANCE_DEPTH = 2

# Where everything is caught, and why nothing narrower would do. Meant for two places, the worker and the HTTP edge.
BROAD_EXCEPT: dict[str, str] = {
    "tandem.models.tokenizer_files": "tokenizers raises bare Exception for every fault of a file",
    "tandem.workers.inline": "the worker's boundary: whatever an engine throws reaches the caller and ends no thread",
    "tandem.workers.callbacks": "the same boundary from within: a callback that raises ends no thread of ours",
    "tandem.workers.process": "the thread that starts a child anew must outlive every fault; it logs and tries again",
    "tandem.server.app": "the HTTP edge: one request's bug must not end the others'",
}

# Beside the clock: what measures from outside, and the stand-in for a device, which takes time by its nature.
TIME_ALLOWED = ("tandem.clock", "tandem.bench*", "tandem.cli*", "tandem.backends.fake")
TORCH_ALLOWED = ("tandem.backends.torch*", "tandem.memory.torch_stores", "tandem.bench.*_torch")
QUIET = {"openvino": "tandem.backends.quiet_openvino", "onnxruntime": "tandem.backends.quiet_onnxruntime"}
TORCH = frozenset({"torch", "transformers", "sentence_transformers", "tensorflow", "jax"})
# numpy.random: what is built from a seed. Everything else there draws from one hidden, global state.
SEEDED = frozenset({"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"})
BROAD = frozenset({"Exception", "BaseException"})


def protocols_not_abc(tree: SourceTree) -> Iterator[str]:
    """Seams are Protocols: an implementation needs no import of its contract, and a function can stand in for it."""
    for module in tree:
        for name, line, _ in outside_imports(module):
            if name == "abc":
                yield f"{module.where(line)} imports abc; a seam is a Protocol"


def silent_except(tree: SourceTree) -> Iterator[str]:
    """No handler that does nothing. ``contextlib.suppress`` with a narrow type says the same in the open."""
    for module, handler in _handlers(tree):
        if all(isinstance(node, ast.Pass) or _is_words(node) for node in handler.body):
            yield f"{module.where(handler)} swallows an error"


def broad_except(tree: SourceTree) -> Iterator[str]:
    """``except Exception`` only in the places named above. A handler that ends in a bare ``raise`` only cleans up."""
    for module in tree:
        for node in module.nodes:
            if catches_all(node) and module.name not in BROAD_EXCEPT:
                yield f"{module.where(node)} catches everything"


def keyword_catch_alls(tree: SourceTree) -> Iterator[str]:
    """No ``**kwargs`` in a signature of ours: what is passed on without a name is checked by nobody."""
    for module in tree:
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and node.args.kwarg is not None:
                yield f"{module.where(node)} takes **{node.args.kwarg.arg}"


def inheritance(tree: SourceTree) -> Iterator[str]:
    """At most two steps among our own classes; classes of other packages count as the ground."""
    bases: dict[str, tuple[str, list[str]]] = {}
    for module in tree:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                parents = [dotted(base).rpartition(".")[2] for base in node.bases]
                bases[node.name] = (module.where(node), parents)

    def depth(name: str, seen: tuple[str, ...] = ()) -> int:
        if name not in bases or name in seen:
            return 0
        ours = [parent for parent in bases[name][1] if parent in bases and parent != name]
        return 1 + max(depth(parent, (*seen, name)) for parent in ours) if ours else 0

    for name, (where, _) in bases.items():
        if depth(name) > INHERITANCE_DEPTH:
            yield f"{where} {name} inherits {depth(name)} deep, over {INHERITANCE_DEPTH}"


def one_clock(tree: SourceTree) -> Iterator[str]:
    """Time comes from ``clock.py``, so that the code under simulation is the code that serves."""
    for module in tree:
        if _matches(module, TIME_ALLOWED):
            continue
        for name, line, _ in outside_imports(module):
            if name == "time":
                yield f"{module.where(line)} imports time; take a Clock"
        for node in module.nodes:
            if isinstance(node, ast.Call) and dotted(node.func).endswith(
                ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")
            ):
                yield f"{module.where(node)} reads the calendar; take a Clock"


def seeded_chance(tree: SourceTree) -> Iterator[str]:
    """Random numbers come from a generator that was given its seed."""
    for module in tree:
        for name, line, names in outside_imports(module):
            if name == "random" and names != ("Random",):
                yield f"{module.where(line)} imports random; use Random(seed)"
        for node in module.nodes:
            words = dotted(node).split(".") if isinstance(node, ast.Attribute) else []
            if len(words) == 3 and words[0] in ("np", "numpy") and words[1] == "random" and words[2] not in SEEDED:
                yield f"{module.where(node)} uses numpy's global generator; use default_rng(seed)"
            unseeded = isinstance(node, ast.Call) and not node.args and not node.keywords
            if unseeded and dotted(node).rpartition(".")[2] in ("default_rng", "Random"):
                yield f"{module.where(node)} has no seed"


def no_torch(tree: SourceTree) -> Iterator[str]:
    """The serving path starts without torch; only its own backend may import it."""
    for module in tree:
        for name, line, _ in outside_imports(module):
            if name.partition(".")[0] in TORCH and not _matches(module, TORCH_ALLOWED):
                yield f"{module.where(line)} imports {name}"


def no_telemetry(tree: SourceTree) -> Iterator[str]:
    """A package that reports home is imported in one place, which keeps it quiet; see docs/dependencies.md."""
    for module in tree:
        for name, line, _ in outside_imports(module):
            quiet = QUIET.get(name.partition(".")[0])
            if quiet is not None and module.name != quiet:
                yield f"{module.where(line)} imports {name}; take it from {quiet}"


def catches_all(node: ast.AST) -> bool:
    """Whether this is an ``except`` or a ``suppress`` of everything that does not end in a bare ``raise``."""
    if isinstance(node, ast.ExceptHandler):
        last = node.body[-1]
        if isinstance(last, ast.Raise) and last.exc is None:
            return False
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
        return not kinds or any(dotted(kind).rpartition(".")[2] in BROAD for kind in kinds)
    if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] == "suppress":
        return any(dotted(kind).rpartition(".")[2] in BROAD for kind in node.args)
    return False


def _handlers(tree: SourceTree) -> Iterator[tuple[Module, ast.ExceptHandler]]:
    for module in tree:
        for node in module.nodes:
            if isinstance(node, ast.ExceptHandler):
                yield module, node


def _is_words(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _matches(module: Module, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(module.name, pattern) for pattern in patterns)
