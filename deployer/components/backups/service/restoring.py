"""Puts files back: beside their places first, looked at there, then swapped. Run by a transient unit.

Killed at any moment, the same request again goes on or starts over without harm. What stood in a place before is kept
as NAME.before-ID. A request with "until": "checked" stops before the swap, and the same one without it does that;
"instead": id of a restore that this one takes the place of.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holding
from ground import FOLDER, PROGRAMS, STATE, Failure, alone, iso, read, run, seconds, write
from places import apply_owner, beside, swap_file, swap_folder, translate
from repository import CACHE, Restic, point_of, tagged
from staging import POSTFIX, STAGING, digest, slug

UNIT = "deploy-restore-files.service"
REQUEST = Path("/run/deploy-restore/files.json")
RECORD = STATE / "restore-files.json"
# The snapshots that were chosen, with their manifests: the same ones until the end.
CHOSEN = STATE / "restore-files-chosen.json"
# Phases in which what fails is mostly the repository's fault, and what is not.
READING = ("choosing snapshots", "fetching files", "checking files")
FULL = "no space left on device"
# Seconds: the whole of it; fetching one part.
BOUND = 24 * 3600
GATEWAY = "/var/lib/sms-gateway/spool.db"
KANNEL = "/var/spool/kannel"


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Begin what is asked for, unless it is under way or done. Returns what `restore-status` prints."""
    known = read(RECORD, {}) or {}
    same = known.get("id") == request["id"]
    ended = ("checked", "done") if request.get("until") == "checked" else ("done",)
    if same and known.get("state") in ended:
        return known
    if active():
        if same and known.get("state") == "running":
            return known
        if not same and known.get("id") != request.get("instead"):
            raise Failure(
                "restoring files", f"another restore ({known.get('id')}) is under way", "wait for its end"
            )
        # One that is given up, or a unit in its last breath.
        run("ending the former restore", ["systemctl", "stop", UNIT], timeout=120)
    REQUEST.parent.mkdir(mode=0o700, exist_ok=True)
    write(REQUEST, request)
    if known.get("id") != request["id"]:
        _discard(request["data"], str(known.get("id") or ""))
        known = {"id": request["id"]}
    write(RECORD, {**known, "state": "running", "phase": "starting", "error": None}, 0o644)
    subprocess.run(["systemctl", "reset-failed", UNIT], capture_output=True, timeout=30)
    words = ["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--property=RuntimeMaxSec={BOUND}"]
    words += ["--property=Nice=5", "/usr/bin/python3", "-B", str(PROGRAMS / "files.py"), "restore-work"]
    run("starting the restore of files", words, timeout=60)
    return status()


def _discard(data: list[dict[str, Any]], name: str) -> None:
    """What an earlier restore fetched and never put in place."""
    if not name:
        return
    for item in data:
        new = beside(Path(item["where"]), name)
        if new.is_dir():
            shutil.rmtree(new, ignore_errors=True)
        else:
            new.unlink(missing_ok=True)
    for folder in (STATE / "restoring").glob(f"{name}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def active() -> bool:
    done = subprocess.run(["systemctl", "is-active", UNIT], capture_output=True, text=True, timeout=30)
    return done.stdout.strip() in ("active", "activating", "deactivating")


def status() -> dict[str, Any]:
    """state: none, running, done or failed. One that was killed is "failed", and goes on when asked for again."""
    known: dict[str, Any] = read(RECORD, {}) or {"state": "none"}
    if known.get("state") == "running" and not active():
        known = read(RECORD, {}) or known
        if known.get("state") == "running":
            body = {
                "what": "restoring files",
                "why": f"it was ended while {known.get('phase')}",
                "next": "the same request again goes on",
            }
            known = {**known, "state": "failed", "error": body}
    return known


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

    def chosen(self) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
        """As `choose` said the first time: what came to the repository since is not looked at."""
        known = read(CHOSEN, {}) or {}
        names = ("lacks", "points", "recovered_to", "total_bytes")
        if known.get("id") == self.id:
            self.record |= {name: known[name] for name in names}
            return [(item, snapshot, entry) for item, snapshot, entry in known["chosen"]]
        chosen = self.choose()
        write(CHOSEN, {"id": self.id, "chosen": chosen, **{name: self.record[name] for name in names}})
        return chosen

    def choose(self) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
        """For each of the wanted data, the snapshot that has it: of the point, or the newest before the target."""
        target, point = self.request["target"], self.request.get("point", "")
        until = seconds(target["time"]) if target["kind"] == "time" else float("inf")
        usable = [
            one
            for one in self.restic.snapshots()
            if point_of(one) and (point_of(one) == point if point else seconds(point_of(one)) <= until)
        ]
        if not usable:
            wanted = f"of the point {point}" if point else f"before {target.get('time', 'now')}"
            raise Failure(
                f"restoring files from {self.restic.name}",
                f"there is no snapshot {wanted}",
                "see `deploy backup list`, or take another repository",
            )
        newest: dict[str, dict[str, Any]] = {one["hostname"]: one for one in usable}
        # This machine's own name first, then the newest.
        mine = str(
            self.request.get("machine") or (read(FOLDER / "settings.json", {}) or {}).get("machine", "")
        )
        order = sorted(
            newest.values(), key=lambda one: (one["hostname"] == mine, point_of(one)), reverse=True
        )
        manifests = [(one, self.manifest(one)) for one in order]
        chosen = []
        for item in self.request["data"]:
            found = [
                (snapshot, {**entry, "users": manifest["users"], "groups": manifest["groups"]})
                for snapshot, manifest in manifests
                for entry in manifest["data"]
                if entry["name"] == item["name"] and entry["kind"] == item["kind"] and not entry["absent"]
            ]
            if not found:
                self.record["lacks"].append(item["name"])
                continue
            snapshot, entry = found[0]
            self.record["points"][item["name"]] = point_of(snapshot)
            chosen.append((item, snapshot, entry))
        self.record["recovered_to"] = min(self.record["points"].values(), default="")
        sizes = {
            one["id"]: (one.get("summary") or {}).get("total_bytes_processed", 0) for _, one, _ in chosen
        }
        self.record["total_bytes"] = sum(sizes.values())
        return chosen

    def manifest(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        path = f"{staged(snapshot)}/manifest.json"
        text = self.restic.ask(
            "reading the manifest of a snapshot", "dump", "--no-lock", snapshot["id"], path
        )
        manifest: dict[str, Any] = json.loads(text)
        return manifest

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
        direct = item["kind"] == "files" and item["where"] != POSTFIX
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
            raise Failure(
                f"{what} from {self.restic.name}",
                f"the repository is damaged, or did not answer: {(errors or [f'restic ended with {code}'])[0]}",
                "take an earlier point or another repository; `deploy backup verify` tells what is damaged",
            )
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


def staged(snapshot: dict[str, Any]) -> str:
    """The folder of copies in a snapshot: it bears the repository's name of that time."""
    [found] = [path for path in snapshot["paths"] if str(path).startswith(f"{STAGING}/")]
    return str(found)


def integrity(what: str, path: Path) -> str:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
            words = str(database.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.Error as error:
        words = str(error)
    if words != "ok":
        raise Failure(what, f"SQLite finds it damaged: {words[:200]}", "take an earlier point")
    return words


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


def work() -> int:
    """The unit's own work."""
    with alone("restore-files", 5) as free:
        if not free:
            return 0
        request = read(REQUEST)
        if not isinstance(request, dict):
            print("there is no request", file=sys.stderr)
            return 1
        # It holds the repository's keys.
        REQUEST.unlink()
        restore = Restore(request)
        try:
            restore.work()
            return 0
        except Failure as failure:
            body = dict(failure.body)
            if restore.record["phase"] in READING:
                # Another repository may have what this one lacks.
                body["elsewhere"] = True
        except (OSError, ValueError, KeyError) as error:
            body = {
                "what": f"restoring files ({restore.record['phase']})",
                "why": f"{type(error).__name__}: {error}",
                "next": "mend it and send the same request again; what was there before is untouched or beside it",
            }
        if FULL in body["why"].lower():
            body = {"what": body["what"], "why": "the disk is full: the files need room beside what is there"}
            body["next"] = (
                "make room or take a larger disk, then run the same restore again; what was there is untouched"
            )
        restore.record |= {"state": "failed", "error": body}
        with contextlib.suppress(OSError):
            restore.save()
        print(f"{body['what']}: {body['why']}", file=sys.stderr)
        return 1


# --- the app as it was built ---


def release(request: dict[str, Any]) -> dict[str, Any]:
    """request: repository, where (the folder of the release). Nothing happens when it is there."""
    where = Path(request["where"])
    if where.is_dir():
        return {"release": where.name, "found": True, "fetched": False}
    restic = Restic(request["repository"], CACHE / "restore")
    found = [one for one in restic.snapshots() if tagged(one, "release") == where.name]
    if not found:
        return {"release": where.name, "found": False, "fetched": False}
    new = where.with_name(where.name + ".restored.tmp")
    new.mkdir(parents=True, exist_ok=True)
    words = ["restore", "--no-lock", f"{found[-1]['id']}:{found[-1]['paths'][0]}", "--target", str(new)]
    code, errors = restic.transfer("fetching the release", words, _ignore, BOUND)
    if code:
        why = (errors or [f"restic ended with {code}"])[0]
        raise Failure(f"fetching the release {where.name}", why, "take another repository, or build it anew")
    new.chmod(0o755)
    subprocess.run(["sync", "-f", str(new)], timeout=600, check=False)
    os.rename(new, where)
    return {"release": where.name, "found": True, "fetched": True}


_ignore: Callable[[dict[str, Any]], None] = lambda _: None  # noqa: E731


# --- what the database names ---


def _reference(own: dict[str, Any], data: str) -> dict[str, Any]:
    for entry in own.get("references", []):
        if entry["name"] == data:
            found: dict[str, Any] = entry
            return found
    raise Failure("comparing database and files", f"no query for {data!r} is in the app's manifest", "")


def named(own: dict[str, Any], data: str) -> str:
    """Paths below the data that the database names. Where the database is."""
    entry = _reference(own, data)
    argv = ["runuser", "-u", "postgres", "--", "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
    argv += ["-d", entry["database"], "-f", "-"]
    done = run("asking the database for files", argv, timeout=600, stdin=entry["query"])
    return done.stdout


def missing(own: dict[str, Any], data: str, paths: list[str]) -> dict[str, Any]:
    """What the database names and the files lack."""
    where = Path(_reference(own, data)["where"])
    wanted = [path for path in paths if path]
    gone = [path for path in wanted if not (where / path).is_file()]
    return {"data": data, "named": len(wanted), "missing": len(gone), "paths": gone[:200]}
