from __future__ import annotations

import re

import pytest

from infra.stack.home import CHECKOUT

SOURCE = CHECKOUT / "pipeline"
PAGE = CHECKOUT / "docs" / "architecture.md"


def test_the_architecture_page_names_what_is_there() -> None:
    """Each module that the page and its picture name exists, and every room of the package is on the page."""
    named = set(re.findall(r"\bcorpuscore(?:\.\w+)+", PAGE.read_text(encoding="utf-8")))
    modules = {module: SOURCE.joinpath(*module.split(".")) for module in named}
    assert [
        module for module, path in modules.items() if not path.with_suffix(".py").exists() and not path.is_dir()
    ] == []
    rooms = {".".join(path.parent.relative_to(SOURCE).parts) for path in SOURCE.glob("corpuscore/*/**/__init__.py")}
    assert rooms <= named


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "RELIABILITY.md",
        *(f"docs/{path.name}" for path in sorted((CHECKOUT / "docs").glob("*.md"))),
    ],
)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    """Files that a page links to, or names with a path inside the repository, exist."""
    path = CHECKOUT / page
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    paths = re.findall(r"`((?:pipeline|tests|infra|dags|docs)/[\w./-]+)`", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    assert [name for name in paths if not (CHECKOUT / name).exists()] == []
