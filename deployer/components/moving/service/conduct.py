"""The switchover, led by the new side's machine with the database: `move.py conduct`, and what follows the permit.

Every step may be done again, and the record is on the disk before each; killed or started anew, it goes on. Before the
permit whatever goes wrong makes the old side serve again; after it there is no way but forward.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import claims
import copies
import postgres
import promote
import remote
import standby
import state
from ground import Failure
from remote import Told, Unreachable

UNIT = "deploy-moving-conduct.service"
# Seconds that asking for the permit goes on beyond the longest pause.
ASK = 20
# Bytes that the standby may be behind, and seconds that the last pass of files may be old, when it begins.
LAG, OLD_PASS = 64 << 20, 3600
Settings = dict[str, Any]


class Conductor:
    def __init__(self, config: Settings) -> None:
        self.config = config
        self.record = state.load("conduct")
        self.old = state.lead(config, other=True)

    def note(self, **values: Any) -> None:
        self.record.update(values)
        state.save("conduct", self.record)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.note(phase=name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.record["seconds"][name] = round(time.monotonic() - began, 2)

    def tell(self, name: str, text: str, good: bool = True) -> None:
        checks = [one for one in self.record["checks"] if one["name"] != name]
        self.note(checks=[*checks, {"name": name, "good": good, "text": text}])

    def ask(self, verb: str, timeout: float, **more: Any) -> dict[str, Any]:
        body = {"id": self.record["id"], "attempt": self.record["attempt"], **more}
        return remote.call(self.old, verb, body, timeout)

    def again(self, verb: str, bound: float, **more: Any) -> dict[str, Any]:
        """Asked again after a silence: every verb may be, and says the same. Raises Told, or Unreachable at the end."""
        end = time.monotonic() + bound
        while True:
            try:
                return self.ask(verb, max(min(bound, end - time.monotonic()), 2), **more)
            except Unreachable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)

    # --- the whole ---

    def run(self) -> None:
        if self.record["permit"] == "none":
            if self.record["old_is_dead"]:
                self.old_is_dead()
            else:
                self.before()
        if self.record["permit"] == "asked":
            if self.record["old_is_dead"]:
                self.old_is_dead()
            else:
                self.permit()
        promote.run(self)
        self.note(state="done", phase="done", error=None)

    # --- before the permit ---

    def before(self) -> None:
        try:
            # Killed in the pause, it goes on there: checks of what is down now would say nothing.
            if not self.record["held_at"]:
                with self.phase("check"):
                    self.check()
                with self.phase("files"):
                    self.others("stop-files", 900)
                with self.phase("arm"):
                    # Their starts go on beside it, not in the pause.
                    remote.beforehand(self.old, "hold", "changed-files", "permit", "forward")
                    self.again("arm", 110)
                    self.tell("commits", "each waits for the standby")
            with self.phase("hold"):
                self.others("hold-too", 30, max_pause=self.record["max_pause"])
                held = self.again("hold", self.record["max_pause"] + 15, max_pause=self.record["max_pause"])
                self.note(held_at=held["held_at"])
            with self.phase("fence"):
                done = remote.side_by_side(
                    {
                        "lsn": lambda: self.again("fence", self.record["max_pause"] + 15)["lsn"],
                        "files": self.last_files,
                    }
                )
            with self.phase("replay"):
                self.replayed(str(done["lsn"]))
        except Failure as failure:
            self.give_up(failure)
            raise
        self.note(permit="asked", phase="permit")

    def check(self) -> None:
        if other := claims.look(int(self.config["generation"])):
            raise Failure("checking", "; ".join(other), "see `deploy status`; this move can not go on")
        found = standby.status(self.config)
        if found["state"] != "streaming" or found["lag_bytes"] > LAG:
            why = f"the standby is {found['state']} and {found['lag_bytes'] >> 20} MiB behind"
            raise Failure("checking", why, "wait until it streams: `move.py standby`")
        for one in self.config["machines"]:
            if one["name"] != self.config["machine"]:
                remote.call(one, "hello", {}, 15)
        known = self.ask("fence-state", 30)
        if known["id"] == self.record["id"] and known["state"] == "reopened":
            # Also of one whose record is lost here: its words must not be taken for ours.
            self.note(attempt=max(self.record["attempt"], known["attempt"] + 1))
        passes = self.others("fresh-files", 30)
        # Now, because nobody waits yet: the old side follows from where it ended; and no commit of ours waits for it.
        postgres.slot(True)
        postgres.wait_for_none()
        facts = self.ask("facts", 30)
        self.tell("database", f"{facts['bytes'] >> 20} MiB, {found['lag_bytes']} bytes behind")
        copied = sum(one["bytes"] for one in passes.values())
        self.note(bytes={"database": facts["bytes"], "files": copied, "in the pause": 0})

    def others(self, verb: str, timeout: float, **more: Any) -> dict[str, Any]:
        """The same of every machine of the new side, this one too."""
        import agent

        body = {"id": self.record["id"], **more}

        def one(machine: dict[str, Any]) -> dict[str, Any]:
            if machine["name"] == self.config["machine"]:
                return agent.VERBS[verb](self.config, body)
            return remote.call(machine, verb, body, timeout)

        return remote.side_by_side(
            {each["name"]: lambda each=each: one(each) for each in state.own_machines(self.config)}
        )

    def last_files(self) -> None:
        began = time.monotonic()
        done = self.others("last-files", copies.LAST + 30)
        self.record["seconds"]["last files"] = round(time.monotonic() - began, 2)
        last = sum(one["bytes"] for one in done.values())
        self.record.setdefault("bytes", {})["in the pause"] = last
        self.tell("files", f"{last} bytes in the last pass")

    def replayed(self, lsn: str) -> None:
        """The standby has the old database's last record. Raises Failure."""
        wanted = postgres.lsn(lsn)
        end = time.monotonic() + self.record["max_pause"]
        while True:
            have = postgres.sql("SELECT pg_last_wal_replay_lsn()")
            # The place that is told is behind the last record; the record's own place is wanted.
            if have and postgres.lsn(have) > wanted:
                self.tell("positions", f"old ended at {lsn}, new replayed to {have}")
                return
            if time.monotonic() > end:
                raise Failure(
                    "comparing positions", f"old ended at {lsn}, new is at {have}", "try it again later"
                )
            time.sleep(0.02)

    def give_up(self, failure: Failure) -> None:
        """The old side is told at once; if it does not hear, its dead-man does the same."""
        try:
            self.again("reopen", 30)
            self.tell("old side", "serves again")
        except Failure as second:
            self.tell("old side", f"reopens by itself: {second}", good=False)
        self._as_before()
        print(failure, file=sys.stderr)

    def _as_before(self) -> None:
        """This side, once the old one serves again; what does not succeed is mended by the next switchover or the end."""
        for verb in ("let-in", "start-files"):
            # The proxy opens by itself too; the passes' state is seen by the flow.
            with suppress(Failure):
                self.others(verb, 30)
        # A slot would keep WAL for nobody.
        with suppress(Failure):
            postgres.slot(False)

    # --- the permit ---

    def permit(self) -> None:
        """Only the answer "permitted" leads on, and only "reopened" leads back. All else leaves it open."""
        began = time.monotonic()
        bound = self.record["max_pause"] + ASK
        try:
            try:
                answer = self.again("permit", bound)
            except Told as refused:
                back = self.again("reopen", 60)
                if back["state"] in ("reopened", "none"):
                    self.note(permit="none")
                    self.tell("old side", "serves again")
                    self._as_before()
                    raise
                raise Unreachable("asking for the permit", f"{refused}; then {back}", "") from None
        except Unreachable as silent:
            self._unknown(silent)
        except Told as told:
            if self.record["permit"] == "none":
                raise
            # Reopening was refused: the permit may have been given, and its answer spoilt.
            try:
                answer = self.ask("permit", 20)
            except Failure:
                self._unknown(told)
        if answer.get("state") != "permitted":
            self._unknown(Failure("asking for the permit", f"the old side answers {answer.get('state')}"))
        self.note(permit="given")
        self.record["seconds"]["permit"] = round(time.monotonic() - began, 2)

    def _unknown(self, failure: Failure) -> NoReturn:
        self.note(state="unknown")
        raise Failure(
            "asking for the permit to promote",
            f"it is not known whether the old side gave it; both are closed until then ({failure})",
            "deploy migrate --resume asks again; if the old side is dead for good: --old-is-dead",
        )

    def old_is_dead(self) -> None:
        """An operator's word in place of the permit: then the claim is what keeps the old side down."""
        what = "promoting without the old side"
        try:
            self.ask("hello", 10)
        except Unreachable:
            pass
        else:
            raise Failure(what, "the old side answers", "leave out --old-is-dead")
        if other := claims.look(int(self.config["generation"])):
            raise Failure(what, "; ".join(other), "see `deploy status`")
        if not postgres.answers():
            raise Failure(what, "the standby does not run", "restore from a repository: deploy restore")
        for told in claims.put(int(self.config["generation"]), needed=True):
            self.tell(told["name"], told["text"], told["good"])
        passes = self.others("stop-files", 60, old_is_dead=True)
        # Of each machine that copies files; 0 where no pass had ended.
        if times := [one["as_of"] for one in passes.values() if "as_of" in one]:
            as_of = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(times)))
            since = f"as of {as_of}: uploads since then" if min(times) else "not copied to the end: uploads"
            lost = f"{since}, and mail and SMS that waited on the old side, are lost with it"
            self.tell("files", lost, good=False)
        self.tell("old side", "dead, by the operator's word", good=False)
        self.note(permit="given")


def run(config: Settings) -> int:
    """The unit's work. Ends with 0 also when it failed: what it noted says so; only a kill is tried again."""
    with state.lock("conducting", 30, "switching over"):
        conductor = Conductor(config)
        if conductor.record.get("id") != config["id"] or conductor.record.get("state") != "running":
            return 0
        try:
            conductor.run()
        except Failure as failure:
            ended = conductor.record["state"] if conductor.record["state"] == "unknown" else "failed"
            conductor.note(state=ended, error=failure.body)
            print(json.dumps(failure.body), file=sys.stderr)
        except Exception as error:
            body = {
                "what": f"switching over ({conductor.record['phase']})",
                "why": f"{type(error).__name__}: {error}",
            }
            body["next"] = f"see `journalctl -u {UNIT}`, then run it again"
            if conductor.record["permit"] == "none":
                conductor.give_up(Failure(body["what"], body["why"], body["next"]))
            conductor.note(state="failed", error=body)
            raise SystemExit(0) from error
    return 0
