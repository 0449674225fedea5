"""One restore of files, phase by phase: choose, fetch beside the places, check, put in place. Not a program."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import holding
from ground import STATE, Failure, iso, read, run, write
from places import apply_owner, beside, swap_file, swap_folder, translate
from repository import CACHE, Restic
from snapshots import Chosen, choose, damaged, staged
from staging import BESIDE, POSTFIX, digest, is_sqlite, slug

RECORD = STATE / "restore-files.json"
# The snapshots that were chosen, with their manifests: the same ones until the end.
CHOSEN = STATE / "restore-files-chosen.json"
FULL = "no space left on device"
# Seconds: the whole of it; fetching one part.
BOUND = 24 * 3600
GATEWAY = "/var/lib/sms-gateway/spool.db"
KANNEL = "/var/spool/kannel"


class Restore:
    """The request, the record of what is done, and the phases."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.id = str(request["id"])
        self.restic = Restic(request["repository"], CACHE / "restore")
        known = read(RECORD, {}) or {}
        done = known.get("done", {}) if known.get("id") == self.id else {}
        old = known.get("seconds", {}) if known.get("id") == self.id else {}
        self.record: dict[str, Any] = {"id": self.id, "state": "running", "phase": "", "seconds": old}
        self.record |= {"done_bytes": 0, "total_bytes": 0, "recovered_to": "", "points": {}, "lacks": []}
        self.record |= {"checks": [], "held": {}, "error": None, "done": done}
        self._saved = 0.0

    def save(self, at_least: float = 0) -> None:
        if time.monotonic() - self._saved >= at_least:
            self._saved = time.monotonic()
            write(RECORD, self.record, 0o644)

    @contextlib.contextmanager
    def phase(self, name: str) -> Any:
        self.record["phase"] = name
        self.save()
        began = time.monotonic()
        try:
            yield
        finally:
            spent = round(time.monotonic() - began, 1)
            self.record["seconds"][name] = round(self.record["seconds"].get(name, 0) + spent, 1)

    def work(self) -> None:
        with self.phase("choosing snapshots"):
            chosen = self.chosen()
        with self.phase("fetching files"):
            for item, snapshot, entry in chosen:
                self.fetch(item, snapshot, entry)
        with self.phase("checking files"):
            for item, _, entry in chosen:
                self.check(item, entry)
            # On the disk before anything takes its place: a power cut after the swap must not leave empty files.
            os.sync()
        if self.request.get("until") == "checked":
            self.record |= {"state": "checked", "phase": "checked"}
            self.save()
            return
        with self.phase("putting files in place"):
            self.mark()
            for item, _, entry in chosen:
                self.place(item, entry)
        for folder in {self.scratch(snapshot) for _, snapshot, _ in chosen}:
            shutil.rmtree(folder, ignore_errors=True)
        self.record |= {"state": "done", "phase": "done", "at": iso(time.time())}
        self.save()

    def mark(self) -> None:
        """Tell the app that its data are others, before they are: it must not start with them as they come."""
        if self.request.get("mark"):
            path = Path(self.request["mark"])
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write(path, {"id": self.id})

    # --- which ---

    def chosen(self) -> list[Chosen]:
        """As `choose` said the first time: what came to the repository since is not looked at."""
        known = read(CHOSEN, {}) or {}
        if known.get("id") != self.id:
            chosen, told = choose(self.restic, self.request)
            known = {"id": self.id, "chosen": chosen, **told}
            write(CHOSEN, known)
        self.record |= {name: known[name] for name in ("lacks", "points", "recovered_to", "total_bytes")}
        return [(item, snapshot, entry) for item, snapshot, entry in known["chosen"]]

    # --- fetch, check, place ---

    def scratch(self, snapshot: dict[str, Any]) -> Path:
        """Where the copies of a snapshot's staging folder go."""
        return STATE / "restoring" / f"{self.id}-{snapshot['id'][:12]}"

    def state(self, item: dict[str, Any]) -> dict[str, Any]:
        entry: dict[str, Any] = self.record["done"].setdefault(item["name"], {})
        return entry

    def fetch(self, item: dict[str, Any], snapshot: dict[str, Any], entry: dict[str, Any]) -> None:
        state = self.state(item)
        if state.get("fetched"):
            return
        # A folder of SQLite files lies in the snapshot as a folder of copies.
        direct = item["kind"] in ("files", "sqlite_folder") and item["where"] != POSTFIX
        source = entry["in"] if direct else staged(snapshot)
        target = beside(Path(item["where"]), self.id) if direct else self.scratch(snapshot)
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = self.record["done_bytes"]

        def told(message: dict[str, Any]) -> None:
            if "bytes_restored" in message:
                self.record["done_bytes"] = before + int(message["bytes_restored"])
                self.save(1)

        what = f"fetching {item['name']}"
        words = ["restore", "--no-lock", f"{snapshot['id']}:{source}", "--target", str(target)]
        code, errors = self.restic.transfer(what, words, told, BOUND)
        if code and (full := [text for text in errors if FULL in text]):
            raise Failure(what, full[0])
        if code:
            raise damaged(what, self.restic, (errors or [f"restic ended with {code}"])[0])
        if not direct:
            self.stage(item, entry, target / slug(item["name"]))
        state["fetched"] = True
        self.save()

    def stage(self, item: dict[str, Any], entry: dict[str, Any], copy: Path) -> None:
        """What was a copy in the snapshot goes beside its place."""
        if item["kind"] == "files":
            return
        where = Path(item["where"])
        new = beside(where, self.id)
        if item["kind"] == "valkey":
            shutil.rmtree(new, ignore_errors=True)
            # As Valkey writes it itself: a base in the format of a dump, and nothing since.
            log = new / "appendonlydir"
            log.mkdir(parents=True, mode=0o700)
            shutil.copyfile(copy, log / "appendonly.aof.1.base.rdb")
            text = "file appendonly.aof.1.base.rdb seq 1 type b\n"
            (log / "appendonly.aof.manifest").write_text(text)
            for path in (new, log, *log.iterdir()):
                apply_owner(path, entry, path.is_dir())
                path.chmod(path.stat().st_mode & 0o750)
            return
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copy, new)
        apply_owner(new, entry, True)

    def check(self, item: dict[str, Any], entry: dict[str, Any]) -> None:
        state, new = self.state(item), beside(Path(item["where"]), self.id)
        if state.get("checked"):
            self.record["checks"].append({"name": item["name"], **state["checked"]})
            return
        what = f"checking {item['name']}"
        if item["kind"] == "sqlite":
            result = {"integrity_check": integrity(what, new)}
        elif item["kind"] == "sqlite_folder":
            result = sound(what, new)
            translate(new, entry)
            apply_owner(new, entry, True)
        elif item["kind"] == "valkey":
            rdb = new / "appendonlydir" / "appendonly.aof.1.base.rdb"
            run(what, ["valkey-check-rdb", str(rdb)], timeout=600, next="take an earlier point")
            result = {"dump": "sound"}
        elif item["where"] == POSTFIX:
            result = {}
        else:
            result = sampled(what, new, entry.get("sample", []))
            translate(new, entry)
            apply_owner(new, entry, True)
        state["checked"] = result
        self.record["checks"].append({"name": item["name"], **result})
        self.save()

    def place(self, item: dict[str, Any], entry: dict[str, Any]) -> None:
        state, where = self.state(item), Path(item["where"])
        if state.get("placed"):
            self.record["held"] |= state.get("held", {})
            return
        new, hold = beside(where, self.id), bool(self.request.get("hold_queues"))
        if item["where"] == POSTFIX:
            copies = sorted((STATE / "restoring").glob(f"{self.id}-*/{slug(item['name'])}"))
            held = {"mail": holding.take_mail(copies[0], hold, self.id) if copies else 0}
        elif item["kind"] == "sqlite":
            held = {}
            if item["where"] == GATEWAY and new.exists():
                held = {"sms": holding.hold_sms(new)} if hold else {}
            swap_file(where, new, self.id)
        else:
            held = {}
            if item["where"] == KANNEL and new.exists():
                holding.set_aside(new / "store", self.id)
            swap_folder(where, new, self.id, lambda: self.save(), state)
        state |= {"placed": True, "held": held}
        self.record["held"] |= held
        self.save()


def integrity(what: str, path: Path) -> str:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
            words = str(database.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.Error as error:
        words = str(error)
    if words != "ok":
        raise Failure(what, f"SQLite finds it damaged: {words[:200]}", "take an earlier point")
    return words


def sound(what: str, folder: Path) -> dict[str, Any]:
    """Every SQLite file below it is whole. Raises Failure for the first that is not."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_sqlite(path)]
    for path in found:
        integrity(f"{what}: {path.relative_to(folder)}", path)
        # Its own process writes them anew.
        for name in BESIDE:
            Path(f"{path}{name}").unlink(missing_ok=True)
    return {"integrity_check": f"{len(found)} SQLite files ok"}


def sampled(what: str, folder: Path, sample: list[list[Any]]) -> dict[str, Any]:
    """Compares with the hashes taken before the backup. What changed between the two is neither good nor bad."""
    same, changed, gone = 0, 0, 0
    for name, size, mtime, sha256 in sample:
        path = folder / name
        try:
            info = path.stat()
        except FileNotFoundError:
            gone += 1
            continue
        if (info.st_size, info.st_mtime_ns) != (size, mtime):
            changed += 1
        elif digest(path) != sha256:
            raise Failure(what, f"{name} is not what was backed up", "take another repository")
        else:
            same += 1
    return {"files_compared": same, "files_changed": changed, "files_gone": gone}
