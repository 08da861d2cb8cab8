"""The documentation says what is there: links resolve, commands are documented, houses stay small."""

import importlib.util
import re
from pathlib import Path

import pytest

from weightvc.cli.group import COMMANDS
from weightvc.merge.table import METHODS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_links_within_the_repository_resolve(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            slugs = {
                re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in file.read_text().splitlines()
                if line.startswith("#")
            }
            assert anchor in slugs, f"{page}: {target}"


def test_command_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.PAGE.read_text() == reference.page(), "run `make docs`"


def test_every_command_and_method_is_documented():
    readme, methods = (ROOT / "README.md").read_text(), (ROOT / "docs" / "methods.md").read_text()
    assert [name for name in COMMANDS if f"wvc {name}" not in readme] == []
    assert [name for name in METHODS if f"`{name}`" not in methods] == []


def test_modules_stay_small():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "weightvc").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_changelog_fragments_have_a_kind():
    names = [path.name for path in (ROOT / "docs" / "changelog.d").iterdir()]
    kinds = re.compile(r"\+?[\w-]+\.(added|changed|deprecated|removed|fixed|security)\.md")
    assert [name for name in names if not kinds.fullmatch(name)] == []


def test_decisions_are_numbered_without_gaps():
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
