"""`deploy app check`: an app's files, looked at without a machine. Changes nothing and asks nobody."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.core.component import ComponentSpec, Context, File
from deployer.core.errors import DeployError, InputError
from deployer.core.machine import Facts, Machine
from deployer.core.manifest import Manifest
from deployer.core.model import Project
from deployer.flow import provision
from deployer.project.document import Document, read
from deployer.project.mistakes import Mistakes, Place, did_you_mean, dotted

# Seconds for systemd-analyze.
BOUND = 60
_DATA = re.compile(r"\{\{?\s*data\s*\}?\}/([A-Za-z0-9._/-]+)")
_SECRET = re.compile(r"\bsecrets\.([A-Za-z_][A-Za-z0-9_]*)")
_SETTING = re.compile(r"\bsettings\.([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Finding:
    """where: FILE:LINE. key: of app.yaml, "" for another file. wrong: it keeps the app from running; else worth a look."""

    where: str
    key: str
    text: str
    wrong: bool = True


class _Secrets(dict[str, str]):
    """Stands for every secret: nothing is decrypted for a check."""

    def __missing__(self, key: str) -> str:
        return "secret-of-" + key.replace("/", "-")


def check(root: Path, name: str, provider: str | None, inventory_file: Path | None) -> dict[str, Any]:
    """ok, findings (where, key, text, wrong), checked (in words), skipped (what could not be checked here, and why).

    Raises InputError for a project that cannot be read at all.
    """
    try:
        project = _load(root, name, provider, inventory_file)
    except InputError as error:
        return _result(name, [_of_line(line) for line in error.detail.splitlines()] or _raise(error), [], [])
    app = project.app
    document = _document(app)
    context = _context(project)
    findings = [*_declared(app, document), *_routes(app, document, project.stack.domain)]
    checked = ["manifest", "ports", "data", "secrets", "routes"]
    skipped: list[str] = []
    try:
        spec = _spec(context)
    except InputError as error:
        if not any(one.wrong for one in findings):
            findings.append(Finding(document.file, "", f"{error.why}; {error.next}"))
        return _result(name, findings, checked, ["templates and units: the manifest comes first"])
    rendered = _render(spec, project, findings)
    checked.append(f"{len(rendered)} templates and units rendered")
    units = {path: data for path, data in rendered.items() if path.startswith("/etc/systemd/system/")}
    if shutil.which("systemd-analyze"):
        findings += _units(units, document)
        checked.append(f"{len(units)} units verified by systemd-analyze")
    else:
        skipped.append(
            "units: this computer has no systemd-analyze; deploy up shows what systemd says of them"
        )
    return _result(name, findings, checked, skipped)


def _result(
    name: str, findings: Sequence[Finding], checked: Sequence[str], skipped: Sequence[str]
) -> dict[str, Any]:
    return {
        "app": name,
        "ok": not any(one.wrong for one in findings),
        "findings": [vars(one) for one in findings],
        "checked": list(checked),
        "skipped": list(skipped),
    }


def _raise(error: InputError) -> list[Finding]:
    raise error


def _of_line(line: str) -> Finding:
    """A mistake as the project's checks write it: FILE:LINE: KEY: WHY."""
    where, _, rest = line.partition(": ")
    key, colon, why = rest.partition(": ")
    return Finding(where, key, why) if colon and " " not in key else Finding(where, "", rest)


def _load(root: Path, name: str, provider: str | None, inventory_file: Path | None) -> Project:
    """The project with this app, at the inventory that was named, or at any: where it runs changes little."""
    from deployer.project import load

    own = sorted(path.stem for path in (root / "inventories").glob("*.yaml"))
    where = provider or (None if inventory_file else ("local" if "local" in own or not own else own[0]))
    return load(root, where, inventory_file, name, expand=False)


def _document(app: Manifest) -> Document:
    mistakes = Mistakes()
    document = read(app.path("app.yaml"), f"templates/apps/{app.name}/app.yaml", mistakes, None)
    mistakes.stop()
    assert document is not None
    return document


def _context(project: Project) -> Context:
    roles = provision.roles(project)
    machines = {
        entry.name: Machine(entry.name, "0", "running", f"192.0.2.{number}")
        for number, entry in enumerate(project.inventory.machines, 1)
    }
    if not roles.get("app"):
        raise InputError(
            f"checking {project.app.name}",
            f"no machine of the inventory {project.inventory.name} plays the role app",
            "name another inventory with --provider",
        )
    # Two halves, which templates take apart.
    pairs = {f"app/{one.name}": "private public" for one in project.app.secrets if one.kind == "vapid"}
    return Context(
        project, machines[roles["app"][0]], machines, roles, _Secrets(pairs), Facts(cores=2, memory=2 << 30)
    )


def _spec(context: Context) -> ComponentSpec:
    from deployer.components.app.spec import spec
    from deployer.components.proxy.routes import app_sites

    app_sites(context.project.app, context.project.stack.domain)
    return spec(context)


# --- what the manifest declares ---


def _declared(app: Manifest, document: Document) -> Iterator[Finding]:
    """Data and secrets: what is used and not declared, or declared and not used."""

    def at(place: Place, text: str, wrong: bool = True) -> Finding:
        return Finding(str(document.mark(place)), dotted(place), text, wrong)

    # Beside a SQLite file lie its companions, and what can be made anew.
    covered = [
        entry.path.rstrip("/")
        if entry.kind != "sqlite" or "/" not in entry.path
        else entry.path.rpartition("/")[0]
        for entry in app.data
    ]
    covered.append("cache")
    used: set[str] = set()
    for where, key, text in _texts(app, document):
        for path in _DATA.findall(text):
            if not any(path == own or path.startswith(own + "/") for own in covered):
                why = f"{{data}}/{path} is named here and stands under no entry of data: no backup holds it"
                yield Finding(where, key, why, wrong=False)
        for number, line in enumerate(text.splitlines(), 1):
            for name in _SECRET.findall(line):
                used.add(name)
                if not key and name not in {entry.name for entry in app.secrets}:
                    near = did_you_mean(name, {entry.name for entry in app.secrets})
                    why = f'secrets.{name}: app.yaml declares no secret "{name}"{near}'
                    yield Finding(f"{where}:{number}", "", why)
            for name in _SETTING.findall(line):
                if not key and name not in app.settings:
                    near = did_you_mean(name, app.settings)
                    yield Finding(
                        f"{where}:{number}", "", f'settings.{name}: app.yaml has no setting "{name}"{near}'
                    )
    for index, entry in enumerate(app.secrets):
        if entry.name not in used:
            yield at(("secrets", index), f"no template uses secrets.{entry.name}", wrong=False)
    if not app.data and not app.databases:
        yield at((), "neither databases nor data are declared: a backup holds nothing of this app", False)
    if not app.probes:
        yield at(("probes",), "there is none: nobody would see that the app does not read its data", False)


def _texts(app: Manifest, document: Document) -> Iterator[tuple[str, str, str]]:
    """Where, key (of app.yaml) and text of everything that is filled in."""
    for index, process in enumerate(app.processes):
        for key, text in (("command", process.command), ("prepare", " ".join(process.prepare))):
            place: Place = ("processes", index, key)
            yield str(document.mark(place)), dotted(place), text
        for name, value in process.environment.items():
            place = ("processes", index, "environment", name)
            yield str(document.mark(place)), dotted(place), value
    for template in _templates(app):
        try:
            text = app.path(template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        yield f"templates/apps/{app.name}/{template}", "", text


def _templates(app: Manifest) -> list[str]:
    steps = (*app.migrations, *app.after_restore, *((app.admin,) if app.admin else ()))
    return list(
        dict.fromkeys([file.template for file in app.files] + [one.stdin for one in steps if one.stdin])
    )


def _routes(app: Manifest, document: Document, domain: str) -> Iterator[Finding]:
    from deployer.components.proxy.routes import fill

    ports = {process.name: process.port for process in app.processes}
    seen: dict[tuple[str, str], int] = {}
    for index, route in enumerate(app.routes):

        def at(key: str, text: str, index: int = index) -> Finding:
            place: Place = ("routes", index, key)
            return Finding(str(document.mark(place)), dotted(place), text)

        host = fill(route.host, domain)
        if host != domain and not host.endswith("." + domain):
            yield at("host", f'"{host}" is not below {domain}; write it as "NAME.{{{{ domain }}}}"')
        if host in (f"sms.{domain}", f"mail.{domain}", f"mta-sts.{domain}"):
            yield at("host", f'"{host}" belongs to the stack itself')
        if not route.path.startswith("/"):
            yield at("path", f'"{route.path}" must begin with /')
        if route.process and not ports.get(route.process):
            yield at("process", f'the process "{route.process}" has no port')
        if (host, route.path) in seen:
            yield at("path", f"{host}{route.path} is routes[{seen[host, route.path]}] too")
        seen.setdefault((host, route.path), index)
    if not app.routes:
        yield Finding(str(document.mark(("routes",))), "routes", "there is none: nobody could reach the app")


# --- templates and units ---


def _render(spec: ComponentSpec, project: Project, findings: list[Finding]) -> dict[str, bytes]:
    """Every file that a template makes, by its path; what could not be rendered is among the findings."""
    from deployer.flow.wanted import render

    made: dict[str, bytes] = {}
    for file in spec.files:
        if not file.template:
            continue
        try:
            made[file.path] = render(file, project.root)
        except DeployError as error:
            text = error.why.removeprefix(file.template).lstrip(":0123456789 ") or error.why
            findings.append(Finding(f"templates/{file.template}:{_line(file, project)}", "", text))
    return made


def _line(file: File, project: Project) -> int:
    """The line at which rendering stops: of a name that is not there jinja's error itself does not tell it."""
    import jinja2

    from deployer.flow.wanted import environment

    try:
        environment(project.root).get_template(file.template).render(**file.values)
    except jinja2.TemplateSyntaxError as error:
        return error.lineno
    except jinja2.TemplateError as error:
        found, trace = 1, error.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename.endswith(file.template):
                found = trace.tb_lineno
            trace = trace.tb_next
        return found
    return 1


def _units(units: Mapping[str, bytes], document: Document) -> Iterator[Finding]:
    """What systemd-analyze(1) says, with programs of the machine replaced by one that is here."""
    with tempfile.TemporaryDirectory(prefix="deploy-units-") as folder:
        for path, data in units.items():
            text = re.sub(r"^(Exec\w+=[-+!@:]*)\S+", r"\1/bin/true", data.decode(), flags=re.MULTILINE)
            # A user that this computer does not know is none of its business.
            text = re.sub(r"^(User|Group)=.*$", r"\1=root", text, flags=re.MULTILINE)
            (Path(folder) / Path(path).name).write_text(text, encoding="utf-8")
        names = sorted(str(path) for path in Path(folder).iterdir())
        words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=BOUND)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Finding(document.file, "", f"systemd-analyze could not be asked: {error}", wrong=False)
            return
        lines = (done.stderr + done.stdout).replace(folder + "/", "").splitlines()
        ours = [Path(path).name for path in units]
        told = [line for line in dict.fromkeys(lines) if any(name in line for name in ours)]
        for line in told:
            name = next(name for name in ours if name in line)
            yield Finding(f"the unit {name}", "", line.removeprefix(name).lstrip(": "))
        if done.returncode and not told:
            yield Finding(document.file, "", f"systemd-analyze: {' '.join(lines)[:500]}", wrong=False)
