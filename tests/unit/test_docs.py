"""The documentation: whole, linked, and in step with verbs and keys."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from deployer.cli.main import deploy
from deployer.project import manifest, schema
from providers import ssh
from providers.local import settings as local

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
# Two verbs that need a few lines only share a page.
PAGE_OF = {"version": "version-completion", "completion": "version-completion"}
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def names(paths: Sequence[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Relative links of a page: the file, and the heading within it."""
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield ((page.parent / path).resolve() if path else page), anchor


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub and others make anchors of them."""
    found = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        assert path.exists(), f"{path} is missing"
        assert not anchor or anchor in anchors(path), f"{path} has no heading #{anchor}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            todo += [path for path, _ in links(page) if path.suffix == ".md" and path.exists()]
    assert not names(sorted(set(PAGES) - reached))


@pytest.mark.parametrize("verb", deploy.commands)
def test_every_verb_has_its_page(verb: str) -> None:
    page = ROOT / "docs" / "verbs" / f"{PAGE_OF.get(verb, verb)}.md"
    text = page.read_text(encoding="utf-8")
    assert f"deploy {verb}" in text.splitlines()[0]
    assert f"$ deploy {verb}" in text, "an example shows it"
    if verb not in PAGE_OF:
        assert "## Exit codes" in text and "## What it touches" in text
    command = deploy.commands[verb]
    known = {word for one in family(command) for option in one.params for word in option.opts}
    known |= {word for option in deploy.params for word in option.opts} | {"--help"}
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in known, f"{verb} has no option {option}"


def family(command: click.Command) -> list[click.Command]:
    return [command, *(command.commands.values() if isinstance(command, click.Group) else ())]


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a section and of the sections within it."""
    for name, info in model.model_fields.items():
        yield name
        for inner in re.findall(r"schema\.(\w+Section)", repr(info.annotation)):
            yield from keys(getattr(schema, inner))


def missing(page: str, wanted: Sequence[str]) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return sorted({key for key in wanted if f"`{key}`" not in text})


def test_the_stack_page_names_every_key() -> None:
    wanted = list(keys(schema.StackFile))
    assert {"operators", "age", "per_prefix", "cores"} <= set(wanted)
    assert not missing("stack.md", wanted)


def test_the_stack_page_names_every_setting_of_the_shipped_apps() -> None:
    folders = manifest.apps(ROOT)
    assert folders
    for folder in folders.values():
        section = re.search(
            r"^settings:\n((?: .*\n)+)", (folder / "app.yaml").read_text(encoding="utf-8"), re.MULTILINE
        )
        assert section
        assert not missing("stack.md", re.findall(r"^  (\w+):", section[1], re.MULTILINE))


def test_the_inventory_page_names_every_key() -> None:
    wanted = list(keys(schema.InventoryFile))
    assert {"machines", "roles", "directories", "spf", "msg_id_type"} <= set(wanted)
    options = [*local.OPTIONS, *local.MACHINE_OPTIONS, *ssh.OPTIONS, *ssh.MACHINE_OPTIONS]
    assert not missing("inventory.md", [*wanted, *options])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_lines_can_be_read_in_a_terminal(page: Path) -> None:
    """Texts are wrapped; tables, links and what programs printed are as long as they are."""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= 132 or line.startswith(("|", "    ", "  ")) or "](" in line, f"line {number}"


def test_the_tour_is_a_valid_script() -> None:
    tour = ROOT / "docs" / "tour.sh"
    assert tour.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(tour)], timeout=10).returncode == 0


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
