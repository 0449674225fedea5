"""The verbs of the secrets bundle, and what other verbs need of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deployer.core.component import Secret
from deployer.core.errors import InputError
from deployer.core.model import Project, Stack

if TYPE_CHECKING:
    from deployer.flow.request import Request
    from deployer.pki.generator import Generator
    from deployer.project.bundle import Bundle

# Behind the name of an SSH key: those before it, which open or identify machines that were not reached since.
PREVIOUS = ("@previous", "@previous2", "@previous3")
_BRING = "run deploy up to bring it to the machines"
# What rotating a kind of secret means for what runs.
_CONSEQUENCES = {
    "ca": (
        "every machine gets a new issuer and new certificates, and all services restart",
        "whoever imported the old root certificate (browsers, other computers) must import the new one",
    ),
    "issuer": ("the machine's services restart with new certificates",),
    "rsa": (
        "other servers see the new DKIM key in DNS only: publish its record before the next mail, and keep the old "
        "record for a week",
    ),
}
_NAMED_CONSEQUENCES = {
    "ssh/host/": (
        "the machine shows the old key, kept as NAME@previous, until `deploy up` has been there; one of your own "
        "(bare metal) keeps its key",
        "other SSH clients that know the machine will then warn once",
    ),
    "ssh/deploy": (
        "machines accept the old key until `deploy up` has been there; it is kept as ssh/deploy@previous",
    ),
    "app/admin_password": (
        "`deploy up` gives it to the first admin, where the app's manifest can (matrix can); who is logged in stays so",
    ),
    "app/": ("the app restarts; sessions or signatures made with the old value may end",),
}


def open_bundle(
    project: Project, request: Request, *, make: bool, draft: bool = False
) -> tuple[Mapping[str, str], list[str]]:
    """All secrets of the project by name, and notices for the operator.

    make:  make what is missing, bring the readers up to date, and write the bundle if it changed.
    draft: with make=False, make what is missing in memory only (a plan before the first `up`).
    Without either raises InputError when there is no bundle yet.
    """
    from deployer.flow import registry

    bundle = _open(request, project.stack)
    if not (bundle.exists or make or draft):
        raise InputError(
            f"opening {bundle.path}",
            "there is none yet: nothing was ever brought up from this folder",
            "deploy up",
        )
    notices = bundle.ensure(registry.secrets(project), _generator(project.stack), save=make)
    return bundle.values, notices


def list_secrets(request: Request) -> list[dict[str, object]]:
    """name, kind and made of each secret, never a value; rotate says why it should be replaced."""
    from deployer.project import load_stack

    bundle = _open(request, load_stack(request.root))
    found = []
    for name, entry in sorted(bundle.entries.items()):
        row: dict[str, object] = {"name": name, "kind": entry.kind, "made": entry.made}
        if entry.exposed:
            row["rotate"] = f"{', '.join(entry.exposed)} could read it and is no operator any more"
        found.append(row)
    return found


def set_secret(request: Request, name: str, value: str) -> dict[str, object]:
    """Give a secret a value of one's own."""
    _refuse_backups("setting a secret", name)
    bundle = existing(request)
    entry = bundle.entries.get(name)
    kind = entry.kind if entry else "given"
    if kind in ("ca", "issuer"):
        raise InputError(
            "setting a secret",
            f"{name} is a certificate authority that is made here",
            f"deploy secrets rotate {name}",
        )
    if not value.strip():
        raise InputError("setting a secret", f"the value for {name} is empty", "give it on standard input")
    bundle.put(Secret(name, kind), value, entry.purpose if entry else "")
    return {"name": name, "notes": [*bundle.save(), *_consequences(name, kind), _BRING]}


def rotate(request: Request, name: str) -> dict[str, object]:
    """Replace one secret by a new one; name "recovery" replaces the recovery identity. Says what follows."""
    from deployer.project import load_stack

    _refuse_backups("rotating a secret", name)
    bundle = existing(request)
    if name == "recovery":
        bundle.new_recovery()
        return {"name": name, "notes": [*bundle.save(), "the old recovery identity opens older files only"]}
    entry = bundle.entries.get(name)
    if entry is None:
        raise _unknown(name, bundle)
    if name in _bound(request):
        raise InputError(
            "rotating a secret",
            f"what the app keeps, or what others know it by, is bound to {name}; with another one it is lost",
            f"when you know what follows, deploy secrets edit {name} sets it all the same",
        )
    if entry.kind == "given":
        raise InputError(
            "rotating a secret",
            f"{name} comes from somebody else (a vendor)",
            f"get a new one there, then: deploy secrets edit {name}",
        )
    generator = _generator(load_stack(request.root))
    secret = Secret(name, entry.kind)
    if entry.kind == "ssh":
        _keep_former(bundle, name)
    bundle.put(secret, generator.make(secret, bundle.values), generator.purpose(secret))
    if entry.kind == "ca":
        for other, found in list(bundle.entries.items()):
            if found.kind == "issuer":
                issuer = Secret(other, "issuer")
                bundle.put(issuer, generator.make(issuer, bundle.values), generator.purpose(issuer))
    return {"name": name, "notes": [*bundle.save(), *_consequences(name, entry.kind), _BRING]}


def _bound(request: Request) -> set[str]:
    """Names of the app's secrets that data or identities are bound to."""
    from deployer.project import load_stack, manifest
    from deployer.project.mistakes import Mark, Mistakes

    mistakes = Mistakes()
    app = manifest.load(load_stack(request.root).app, request.root, Mark("stack.yaml", 0), mistakes)
    mistakes.stop()
    return {f"app/{one.name}" for one in app.secrets if one.lasting} if app else set()


def _refuse_backups(what: str, name: str) -> None:
    """What is in the repositories opens with the value that it was written with."""
    if name.startswith("backups/"):
        raise InputError(
            what,
            f"{name} belongs to a generation of the backups: with another value they could not be read",
            "the next restore or migration opens a generation with new passwords (docs/backups.md)",
        )


def former(secrets: Mapping[str, str], name: str) -> list[str]:
    """The values of an SSH key that machines may know: the present one, then those before it."""
    return [secrets[key] for key in (name, *(name + suffix for suffix in PREVIOUS)) if key in secrets]


def _keep_former(bundle: Bundle, name: str) -> None:
    """Machines know the old key until `up` has been there, and it may be rotated again before."""
    newest_first = former(bundle.values, name)
    for suffix, value in zip(PREVIOUS, newest_first, strict=False):
        bundle.put(Secret(name + suffix, "ssh"), value)


def read_secret(request: Request, name: str) -> str:
    """The value of one secret, for the verb that edits it."""
    bundle = existing(request)
    if name not in bundle.entries:
        raise _unknown(name, bundle)
    return bundle.entries[name].value


def _open(request: Request, stack: Stack) -> Bundle:
    from deployer.project.bundle import Bundle

    return Bundle(request.root, stack.operators, request.identity)


def existing(request: Request) -> Bundle:
    """The bundle of the project, without any inventory. Raises InputError when there is none."""
    from deployer.project import load_stack

    bundle = _open(request, load_stack(request.root))
    if not bundle.exists:
        raise InputError(f"opening {bundle.path}", "there is none yet", "the first `deploy up` makes it")
    return bundle


def _generator(stack: Stack) -> Generator:
    from deployer.pki.generator import Generator

    return Generator(stack.name, stack.domain)


def _consequences(name: str, kind: str) -> list[str]:
    named = (notes for prefix, notes in _NAMED_CONSEQUENCES.items() if name.startswith(prefix))
    return list(_CONSEQUENCES.get(kind) or next(named, ()))


def _unknown(name: str, bundle: Bundle) -> InputError:
    import difflib

    near = difflib.get_close_matches(name, list(bundle.entries), n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return InputError(
        "looking for a secret", f'the bundle holds no "{name}"{hint}', "see their names: deploy secrets list"
    )
