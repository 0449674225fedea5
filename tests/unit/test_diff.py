"""The pure difference, and the phases made from it: values in, values out."""

from __future__ import annotations

from pathlib import Path

from deployer.core.component import ComponentSpec, Directory, File, Probe, Step, Unit, User
from deployer.flow.apply import phases
from deployer.flow.diff import diff, managed, restart_needed, step_digest
from deployer.flow.observe import Found, nothing, request_for
from deployer.flow.wanted import Wanted, build

SPEC = ComponentSpec(
    name="cache",
    packages=("valkey-server", "pip"),
    users=(User("cachy", groups=("ssl-cert",)),),
    directories=(Directory("/etc/cachy", 0o750, "root", "cachy"),),
    files=(
        File("/etc/apt/early", content="early", early=True, on_change="none"),
        File("/etc/cachy/main.conf", content="port 1\n", mode=0o640, group="cachy", secret=True),
        File("/etc/cachy/users.conf", content="bob\n", on_change="reload"),
    ),
    units=(
        Unit("cachy.service", reload=True),
        Unit("cachy-clean.service", resident=False),
        Unit("old.service", wanted=False),
    ),
    steps=(
        Step("build", "built", check="test -e /b", stage="build", needs=("pip",)),
        Step("prepare", "prepared", check="test -e /x", args={"a": 1}, stage="configure"),
        Step("account", "account", args={"password": "hush-hush"}),
    ),
    probes=(Probe("ping", "script", {"script": "ping"}), Probe("web", "https", {})),
)


ORDER = ("base", "database", "cache")


def wanted(spec: ComponentSpec = SPEC) -> Wanted:
    return build("m1", [spec], Path("/nowhere"))


def as_wanted(wish: Wanted) -> dict[str, object]:
    """What the observe script answers on a machine that is as wanted."""
    spec = wish.specs[0]
    return {
        **nothing("m1").raw,
        "packages": dict.fromkeys(spec.packages, "1.0"),
        "users": {"cachy": ["ssl-cert"]},
        "files": {path: item.found_as for path, item in wish.files.items()}
        | {path: [d.mode, d.owner, d.group, "dir"] for path, (d, _) in wish.directories.items()},
        "managed": dict.fromkeys(wish.files, "cache"),
        "units": {
            "cachy.service": {"active": "active", "enabled": "enabled"},
            "cachy-clean.service": {"active": "inactive", "enabled": "static"},
            "old.service": {"active": "inactive", "load": "masked"},
        },
        "steps": {f"cache.{step.name}": {"ok": True, "marker": step_digest(step)} for step in spec.steps},
        "applied": {"cache": wish.digests(spec)},
    }


def test_nothing_differs_on_a_machine_that_is_as_wanted() -> None:
    wish = wanted()
    found = Found("m1", as_wanted(wish))
    assert diff(wish, found) == []
    assert phases({"m1": (wish, found, [])}, ORDER) == []


def test_an_empty_machine_needs_everything() -> None:
    wish = wanted()
    kinds = [(change.kind, change.name, change.action) for change in diff(wish, nothing("m1"))]
    assert kinds == [
        ("package", "valkey-server", "create"),
        ("package", "pip", "create"),
        ("user", "cachy", "create"),
        ("directory", "/etc/cachy", "create"),
        ("file", "/etc/apt/early", "create"),
        ("file", "/etc/cachy/main.conf", "create"),
        ("file", "/etc/cachy/users.conf", "create"),
        ("step", "build", "run"),
        ("step", "prepare", "run"),
        ("step", "account", "run"),
        ("unit", "cachy.service", "start"),
        ("unit", "cachy-clean.service", "start"),
        ("unit", "old.service", "stop"),
        ("restart", "cache", "restart"),
    ]


def test_phases_of_an_empty_machine_come_in_order() -> None:
    wish, found = wanted(), nothing("m1")
    made = phases({"m1": (wish, found, diff(wish, found))}, ORDER)
    assert [phase["name"] for phase in made] == [
        "settings and users",
        "what building needs",
        "packages and users",
        "files",
        "configure",
        "start cache",
    ]
    assert [op["operation"] for op in made[-1]["hosts"]["m1"]] == ["units.converged", "cache/account"]
    assert made[-1]["probes"] == {"m1": {"cache/ping": ["ping", 2.0]}}
    assert made[-1]["applied"] == {"m1": {"cache": wish.digests(SPEC)}}
    assert made[1]["hosts"]["m1"][0]["args"] == {"names": ["pip"]}
    assert made[2]["hosts"]["m1"][0]["args"] == {"names": ["valkey-server"]}
    assert [op["operation"] for op in made[2]["beside"]["m1"]] == ["cache/built"]
    early, files = made[0]["hosts"]["m1"][0]["args"], made[3]["hosts"]["m1"][0]["args"]
    assert [entry[0] for entry in early["files"]] == ["/etc/apt/early"]
    assert [entry[0] for entry in files["files"]] == ["/etc/cachy/main.conf", "/etc/cachy/users.conf"]
    assert files["managed"] == dict.fromkeys(wish.files, "cache")


def test_a_change_says_what_differs_and_never_the_content() -> None:
    wish = wanted()
    raw = as_wanted(wish)
    files = dict(raw["files"])  # type: ignore[call-overload]
    files["/etc/cachy/main.conf"] = [0o644, "root", "root", "0" * 64]
    changes = diff(wish, Found("m1", {**raw, "files": files}))
    assert [str(change) for change in changes] == [
        "change file /etc/cachy/main.conf (mode 0644 -> 0640, group root -> cachy, content)",
        "restart restart cache (its files or packages changed)",
    ]


def test_a_file_that_we_wrote_and_no_longer_want_is_removed() -> None:
    wish = wanted()
    raw = as_wanted(wish)
    found = Found("m1", {**raw, "managed": {**raw["managed"], "/etc/cachy/gone": "cache"}})  # type: ignore[dict-item]
    changes = diff(wish, found)
    assert [(change.name, change.action) for change in changes] == [("/etc/cachy/gone", "remove")]
    (phase,) = [phase for phase in phases({"m1": (wish, found, changes)}, ORDER) if phase["name"] == "files"]
    assert phase["hosts"]["m1"][0]["args"]["remove"] == ["/etc/cachy/gone"]


def test_a_file_that_is_kept_is_not_remembered_as_one_to_remove() -> None:
    """A host key: another inventory that does not manage it must not take it away."""
    spec = ComponentSpec(
        name="base", files=(File("/etc/key", content="k", keep=True), File("/etc/x", content="x"))
    )
    assert managed(wanted(spec)) == {"/etc/x": "base"}


def test_what_may_have_read_another_file_is_restarted_though_the_digest_is_right() -> None:
    """A run with a bad file failed, and the file was taken back: the digest is that of the run before both."""
    wish = wanted()
    raw = as_wanted(wish)
    for path, need in (("main.conf", "restart"), ("users.conf", "reload")):
        files = {**raw["files"], f"/etc/cachy/{path}": [0o644, "root", "root", "0" * 64]}  # type: ignore[dict-item]
        found = Found("m1", {**raw, "files": files})
        assert restart_needed(wish, SPEC, found) == need
        # Killed from here on, the next run finds no digest.
        made = phases({"m1": (wish, found, diff(wish, found))}, ORDER)
        (tree,) = [phase for phase in made if phase["name"] == "files"]
        assert tree["hosts"]["m1"][0]["args"]["stale"] == ["cache"]


def test_a_unit_between_two_tries_is_not_active() -> None:
    wish = wanted()
    raw = as_wanted(wish)
    trying = {"active": "activating", "sub": "auto-restart", "enabled": "enabled"}
    units = {**raw["units"], "cachy.service": trying}  # type: ignore[dict-item]
    assert [change.action for change in diff(wish, Found("m1", {**raw, "units": units}))] == ["start"]


def test_restart_follows_from_the_digest_on_the_machine_not_from_this_run() -> None:
    """A run that was killed between writing and restarting left the files right and the digest old."""
    wish = wanted()
    raw = as_wanted(wish)
    stale = Found(
        "m1", {**raw, "applied": {"cache": {"restart": "old", "reload": wish.digests(SPEC)["reload"]}}}
    )
    assert restart_needed(wish, SPEC, stale) == "restart"
    changes = diff(wish, stale)
    assert [change.action for change in changes] == ["restart"]
    phase = phases({"m1": (wish, stale, changes)}, ORDER)[-1]
    assert phase["hosts"]["m1"][0]["args"]["restart"] == ["cachy.service"]


def test_a_file_marked_reload_only_reloads() -> None:
    wish = wanted()
    raw = as_wanted(wish)
    found = Found("m1", {**raw, "applied": {"cache": {**wish.digests(SPEC), "reload": "old"}}})
    changes = diff(wish, found)
    assert [change.action for change in changes] == ["reload"]
    args = phases({"m1": (wish, found, changes)}, ORDER)[-1]["hosts"]["m1"][0]["args"]
    assert (args["restart"], args["reload"]) == ([], ["cachy.service"])


def test_a_step_runs_again_when_its_arguments_change() -> None:
    wish = wanted()
    raw = as_wanted(wish)
    steps = {**raw["steps"], "cache.account": {"ok": True, "marker": "other"}}  # type: ignore[dict-item]
    changes = diff(wish, Found("m1", {**raw, "steps": steps}))
    assert [(change.name, change.detail) for change in changes] == [("account", "arguments changed")]


def test_a_stopped_unit_is_started_and_an_unwanted_one_stopped() -> None:
    wish = wanted()
    raw = as_wanted(wish)
    units = {
        **raw["units"],  # type: ignore[dict-item]
        "cachy.service": {"active": "failed", "enabled": "enabled"},
        "old.service": {"active": "inactive", "load": "loaded", "enabled": "generated"},
    }
    found = Found("m1", {**raw, "units": units})
    changes = diff(wish, found)
    assert [(change.name, change.action) for change in changes] == [
        ("cachy.service", "start"),
        ("old.service", "stop"),
    ]
    args = phases({"m1": (wish, found, changes)}, ORDER)[-1]["hosts"]["m1"][0]["args"]
    assert (args["start"], args["stop"]) == (["cachy.service"], ["old.service"])


def test_the_request_asks_for_all_that_the_specs_name() -> None:
    asked = request_for([SPEC])
    assert asked["files"] == ["/etc/apt/early", "/etc/cachy", "/etc/cachy/main.conf", "/etc/cachy/users.conf"]
    assert asked["probes"] == {"cache/ping": ["ping", 2.0]}
    assert asked["steps"] == {
        "cache.build": "test -e /b",
        "cache.prepare": "test -e /x",
        "cache.account": "true",
    }


def test_a_database_elsewhere_is_started_before_the_app() -> None:
    """The machines' own lists differ; the order is the registry's, over all machines."""
    app = ComponentSpec("app", files=(File("/a", content="a"),))
    database = ComponentSpec("database", files=(File("/d", content="d"),))
    work = {}
    for name, spec in (("a1", app), ("d1", database)):
        wish = build(name, [spec], Path("/nowhere"))
        work[name] = (wish, nothing(name), diff(wish, nothing(name)))
    names = [phase["name"] for phase in phases(work, ("base", "database", "app"))]
    assert names == ["files", "start database", "start app"]
