"""What the documents say about the project is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tandem import __version__
from tandem.settings_page import settings_markdown
from tests.architecture.closure import pins
from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("examples/**/*.md")])
GENERATED: dict[str, Callable[[], str]] = {"docs/settings.md": settings_markdown}
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def read(*parts: str) -> str:
    return REPOSITORY.joinpath(*parts).read_text(encoding="utf-8")


def broken_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [target for target, _ in LINK.findall(text) if target and not (page.parent / target).exists()]


def versions(page: str) -> dict[str, str]:
    """Name -> version of every table row whose first two cells are a package and a version."""
    rows = re.findall(r"^\| ([\w.-]+) \| (\d[\w.]*) \|", page, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in rows}


def test_dependencies_are_documented_as_locked() -> None:
    locked = pins(read("requirements", "serve.txt")) | pins(read("requirements", "build.txt"))
    assert versions(read("docs", "dependencies.md")) == locked


@pytest.mark.parametrize("page", GENERATED)
def test_generated_pages_do_not_lag(page: str) -> None:
    assert read(page) == GENERATED[page](), "run `make docs`"


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md) [b](gone.md#x) [c](https://example.org/gone)\n```\n[d](code.md)\n```\n")
    assert broken_links(page) == ["gone.md"]


def test_a_version_that_lags_is_found() -> None:
    assert versions("| name | version |\n|---|---|\n| huggingface_hub | 2.4.0 | x |\n") == {"huggingface-hub": "2.4.0"}
