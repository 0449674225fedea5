"""What restores left on a machine: found with sizes, told with the command that removes it, and left there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from deployer.components.backups import actions
from deployer.flow.doctor import backups as judged


def ask(root: Path) -> actions.Leftovers:
    """The script, on a machine whose / is `root`."""
    script = actions.leftovers_script(5)
    for folder in ("/etc/deploy", "/var/lib/"):
        script = script.replace(f'"{folder}', f'"{root}{folder}')
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return actions.leftovers(done.stdout)


def put(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100_000)
    return str(path)


def test_what_restores_left_is_named_and_stays(tmp_path: Path) -> None:
    media, ids = tmp_path / "srv/[media]", tmp_path / "var/lib/notes/ids.db"
    settings = tmp_path / "etc/deploy/backups/settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"data": [{"where": str(media)}, {"where": str(ids)}]}))
    clusters = tmp_path / "var/lib/postgresql/17"
    for path in (clusters / "main/base/1", media / "picture", ids):
        put(path)
    none = ask(tmp_path)
    assert (none.before, none.fetched) == ({}, {})
    put(clusters / "main.before-ab12/base/1")
    put(clusters / "restored/base/1")
    put(media / ".before-ab12/picture")
    before = put(ids.with_name("ids.db.before-ab12"))
    given_up = put(ids.with_name(".restored-cd34.ids.db"))
    found = ask(tmp_path)
    assert set(found.before) == {str(clusters / "main.before-ab12"), str(media / ".before-ab12"), before}
    assert set(found.fetched) == {str(clusters / "restored"), given_up}
    assert all(size >= 100_000 for size in (*found.before.values(), *found.fetched.values()))
    assert not found.partial

    # A restore that goes on needs what it has fetched.
    state = tmp_path / "var/lib/deploy/backups/restore-database.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"state": "checked"}))
    assert set(ask(tmp_path).fetched) == {given_up}

    kept, useless = judged.leftovers("notes-all-1", found)
    assert kept.status == useless.status == "warn"
    assert f"{before} (0.1 MiB)" in kept.found
    assert useless.next.startswith("it is of no use: deploy exec --machine notes-all-1 -- rm -rf ")
    command = kept.next.partition(" -- ")[2]
    subprocess.run(["bash", "-c", command], check=True)
    assert not ask(tmp_path).before and (media / "picture").exists() and ids.exists()
    assert [one.status for one in judged.leftovers("notes-all-1", none)] == ["ok"]
