"""How a drill's exercise reaches its machine: the script and what it imports, through one standard input."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from deployer.core.resources import shipped
from deployer.flow.rehearsal import _LOADER

DOORS = "import sys\nDOMAIN = sys.argv[1]\n"


def run(script: str) -> subprocess.CompletedProcess[str]:
    text = _LOADER.format(files={"drill.py": script, "doors.py": DOORS})
    command = [sys.executable, "-", "social.test", "17"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)


def test_it_imports_the_doors_and_ends_as_it_says(tmp_path: Path) -> None:
    said = (
        "import pathlib\nfrom doors import DOMAIN\nprint(DOMAIN, __name__, pathlib.Path(__file__).parent)\n"
    )
    done = run(said)
    domain, name, folder = done.stdout.split()
    assert (done.returncode, domain, name) == (0, "social.test", "__main__"), done.stderr
    assert not Path(folder).exists()
    done = run("import sys\nsys.exit('\"it\" is {not} there')\n")
    assert (done.returncode, done.stderr.strip()) == (1, '"it" is {not} there')


@pytest.mark.parametrize(
    "path", sorted(shipped("templates").glob("apps/*/drill.py")), ids=lambda path: path.parent.name
)
def test_what_the_shipped_ones_import_is_there(path: Path) -> None:
    """Python's own library, and names that the doors have."""
    there = {
        name
        for node in ast.parse((shipped("templates") / "app/doors.py").read_text()).body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef)
            else [one.id for one in ast.walk(node) if isinstance(one, ast.Name)]
        )
    }
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {one.name.split(".")[0] for one in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.module == "doors" and {one.name for one in node.names} <= there
