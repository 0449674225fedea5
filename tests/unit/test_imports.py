"""Import rules that the contracts in pyproject.toml cannot say (bin/test runs those with import-linter)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Cost too much at start, or must not be there at all (gevent patches, pyinfra prints).
HEAVY = {
    "boto3", "botocore", "cryptography", "gevent", "hcloud", "jinja2", "octodns", "paramiko", "pydantic",
    "pyinfra", "pyrage", "requests", "rich", "yaml",
}  # fmt: skip
LAZY = {"boto3", "botocore", "hcloud", "octodns", "octodns_bind", "octodns_hetzner", "octodns_route53"}
# Classes made from octoDNS's, which cannot wait for a function; they are themselves imported in one only.
MADE_FROM_OCTODNS = {f"deployer.dns.{name}" for name in ("hetzner", "octo", "rfc2136", "route53")}
# Run on machines, with what is there; never imported here.
ELSEWHERE = {"service", "remote"}


def shipped() -> list[Path]:
    files = [path for folder in ("deployer", "providers") for path in (ROOT / folder).rglob("*.py")]
    return [path for path in files if not ELSEWHERE & set(path.relative_to(ROOT).parts)]


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Full names of what a file imports; top_only: while it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _run_at_import(tree.body) if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _run_at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            yield from _run_at_import(node.body)
        else:
            yield node


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sorted((ROOT / "deployer/core").rglob("*.py")), ids=name)
def test_core_is_standard_library_only(path: Path) -> None:
    for found in imports(path):
        assert found.split(".")[0] in sys.stdlib_module_names or found.startswith("deployer.core"), found


@pytest.mark.parametrize(
    "path",
    [p for p in shipped() if p.is_relative_to(ROOT / "deployer/components") and p.name != "operations.py"],
    ids=name,
)
def test_what_describes_a_component_needs_no_host(path: Path) -> None:
    """Everything but operations.py: core, and of other components what is no operation."""
    for found in imports(path):
        assert found.split(".")[0] not in HEAVY - {"jinja2"}, found
        if found.startswith("deployer."):
            assert found.startswith(("deployer.core", "deployer.components")), found
        assert "operations" not in found.split("."), found


@pytest.mark.parametrize("path", shipped(), ids=name)
def test_of_every_file(path: Path) -> None:
    place = path.relative_to(ROOT)
    for found in imports(path):
        parts = found.split(".")
        if parts[0] in ("pyinfra", "gevent"):
            assert place.parts[1] in ("engine", "ops") or place.name == "operations.py", f"imports {found}"
        assert parts[0] != "tests", f"imports {found}"
        assert not (parts[0] == "deployer" and ELSEWHERE & set(parts)), f"{found} runs on machines"
    module = ".".join(place.with_suffix("").parts)
    for found in imports(path, top_only=True):
        assert found not in MADE_FROM_OCTODNS, f"{found} belongs into the function that uses it"
        if module not in MADE_FROM_OCTODNS:
            assert found.split(".")[0] not in LAZY, f"{found} belongs into the function that uses it"


def test_help_imports_click_and_nothing_heavy() -> None:
    code = (
        "import sys\nfrom deployer.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert not HEAVY & loaded
    assert not {module for module in loaded if module.startswith(("deployer.flow", "providers"))}
