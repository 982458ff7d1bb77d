"""Serving stays small, pinned and free of torch."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.closure import LIMIT_BYTES, closure, forbidden, installed_bytes, pins, third_party, unhashed
from tests.architecture.source import SourceTree
from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {
    name: (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    for name in ("build", "serve", "dev")
}


# Declared, though no module of ours says its name.
USED_WITHOUT_IMPORT = {"httptools": "uvicorn parses requests with it where it is there"}
# Imported, though nothing declares it: a benchmark compares with it where somebody has installed it.
COMPARED_WITH = {"transformers": "tandem.bench.gpu_torch"}


def declared() -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}


def optional() -> set[str]:
    """What an extra brings; `no_torch` in habits.py says who may import it."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    return {canonicalize_name(Requirement(text).name) for texts in extras for text in texts}


@pytest.fixture(scope="module")
def imported() -> dict[str, str]:
    return third_party(SourceTree.read(REPOSITORY / "src" / "tandem"))


@pytest.fixture(scope="module")
def serving() -> dict[str, Distribution]:
    return closure(PROJECT["project"]["dependencies"])


def test_the_lock_holds_exactly_what_serving_needs(serving: dict[str, Distribution]) -> None:
    locked = pins(LOCKS["serve"])
    assert {name: found.version for name, found in serving.items()} == locked


def test_serving_needs_no_torch(serving: dict[str, Distribution]) -> None:
    assert forbidden(serving) == []
    assert forbidden(pins(LOCKS["serve"])) == []


def test_serving_is_under_600_mb(serving: dict[str, Distribution]) -> None:
    sizes = {name: installed_bytes(found) for name, found in serving.items()}
    assert sum(sizes.values()) < LIMIT_BYTES, sorted(sizes.items(), key=lambda item: -item[1])[:10]
    # An empty sum would pass as well.
    assert sum(sizes.values()) > LIMIT_BYTES / 10


@pytest.mark.parametrize("lock", ["build", "serve"])
def test_what_make_install_brings_has_hashes(lock: str) -> None:
    assert unhashed(LOCKS[lock]) == []


def test_tests_run_on_the_pins_that_serve() -> None:
    serve, dev = pins(LOCKS["serve"]), pins(LOCKS["dev"])
    assert {name: dev[name] for name in serve.keys() & dev.keys()} == {
        name: serve[name] for name in serve.keys() & dev.keys()
    }


def test_what_tests_import_is_locked() -> None:
    tests = SourceTree.read(REPOSITORY / "tests")
    locked = pins(LOCKS["serve"]).keys() | pins(LOCKS["dev"]).keys() | {"tandem"}
    assert {name: where for name, where in third_party(tests).items() if name not in locked} == {}


def test_locks_name_no_index() -> None:
    assert [name for name, text in LOCKS.items() if "://" in text or "--index" in text] == []


def test_what_is_imported_is_declared(imported: dict[str, str]) -> None:
    allowed = declared() | optional() | COMPARED_WITH.keys()
    assert {name: where for name, where in imported.items() if name not in allowed} == {}
    for name, module in COMPARED_WITH.items():
        assert imported[name].startswith(f"{module}:")


def test_what_is_declared_is_imported(imported: dict[str, str]) -> None:
    assert declared() - imported.keys() == USED_WITHOUT_IMPORT.keys()


def test_an_import_that_is_not_declared_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os, tandem\ndef f():\n    from surprise.x import y\nfrom arro3 import io\n")
    assert third_party(SourceTree.read(tmp_path)).keys() - declared() == {"surprise", "tandem"}


def test_a_torch_in_the_lock_is_found() -> None:
    assert forbidden(
        pins("numpy==2.4.6 \\\n    --hash=sha256:aa\n    # via torch\ntorch==2.13.0\nnvidia-nccl-cu13==2\n")
    ) == [
        "nvidia-nccl-cu13",
        "torch",
    ]


def test_a_pin_without_a_hash_is_found() -> None:
    assert unhashed("a==1 \\\n    --hash=sha256:aa\n    # via b\nb==2 ; sys_platform == 'win32'\n") == [
        "b==2 ; sys_platform == 'win32'"
    ]


def test_pins_for_other_platforms_are_left_out() -> None:
    assert pins("a==1 ; sys_platform == 'nowhere' \\\n    --hash=sha256:aa\nB_c==2  # via a\n") == {"b-c": "2"}


def test_the_closure_follows_requirements_of_requirements() -> None:
    found = closure(["httpx2"])
    assert "idna" in found, "httpx2 needs anyio, which needs idna"
