"""The verb init: a project folder of one's own, with files that explain themselves."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable
from getpass import getuser
from pathlib import Path

from deployer.core.errors import InputError
from deployer.core.resources import shipped

_INVENTORIES = ("local.yaml", "baremetal.yaml")
_IGNORE = """\
# What this computer knows of machines; it can be lost.
/.deploy/
/receipts/
# Opens every secret: keep it offline, never in version control. (secrets.age itself is encrypted: commit it.)
/recovery-identity.txt
"""
_STACK = """\
# What runs. The files in inventories/ say where. Check both at any time with: deploy plan --provider local

# Names the machines and everything at a vendor: lower-case letters, digits, hyphens; at most 30 characters.
name: {name}

# The domain of the service; the app, sms.DOMAIN and the machines' names lie below it.
domain: {domain}

# The app: a folder of templates/apps, here or among the shipped ones.
app: {app}

# Who may change the stack: their SSH keys open the machines, their age recipients the secrets (secrets.age).
# Take somebody out and the next `up` locks them out and lists the secrets to rotate.
operators:
{operators}
# Mail. The address that the app writes from, and where bounces and postmaster's mail go.
mail:
  # sender: noreply@{domain}
  # postmaster: you@example.org      # without it, a mailbox on the machine
  # dkim_selector: deploy1
  # message_size: 25 MiB

# SMS. The bounds keep somebody who signs up in a loop from emptying your account at the carrier.
sms:
  # sender: "+491701234567"
  # countries: [DE, AT, CH]          # where messages may go; without it, everywhere
  # per_number: 10                   # messages a day to one number
  # per_prefix: 100                  # and to all numbers that begin with the same 7 digits
  # per_day: 1000                    # and in total

# What each role needs, where it is more or less than usual: vendors' machine types are chosen by it. Memory and disk
# in GiB; `deploy offers` shows what it costs.
sizes:
  # app: {{cores: 2, memory: 4, disk: 40}}
  # database: {{cores: 2, memory: 4, disk: 40}}

# Settings that the app offers; docs of the app say which.
settings:

# When security upgrades may restart services.
# upgrade_window: "04:00"
# timezone: Etc/UTC
"""


def init(folder: Path, name: str, domain: str, app: str) -> dict[str, object]:
    """Write stack.yaml, inventories and .gitignore into `folder`.

    Gives files (written, below folder) and notes (what to know next). Existing inventories and .gitignore are
    kept. Raises InputError for a bad name, domain or app, or when there is a stack.yaml already.
    """
    from deployer.project import fields
    from deployer.project.identities import personal
    from deployer.project.manifest import apps

    name = _valid("--name", name, fields.stack_name)
    domain = _valid("--domain", domain, fields.domain)
    known = sorted(apps(folder))
    if app not in known:
        near = difflib.get_close_matches(app, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise InputError(
            "making a project", f'unknown app "{app}"{hint}', f"known: {', '.join(known) or 'none'}"
        )
    stack = folder / "stack.yaml"
    try:
        if stack.exists() and stack.read_text(encoding="utf-8").strip():
            raise InputError("making a project", f"{stack} exists already", "choose another folder")
        (folder / "inventories").mkdir(parents=True, exist_ok=True)
        identity = personal()
        key, notes = _ssh_key()
        operator = _operator(key, identity.recipient)
        text = _STACK.format(name=name, domain=domain, app=app, operators=operator)
        stack.write_text(text, encoding="utf-8")
        written = ["stack.yaml"]
        for file in _INVENTORIES:
            if not (target := folder / "inventories" / file).exists():
                shutil.copyfile(shipped("inventories") / file, target)
                written.append(f"inventories/{file}")
        if not (ignore := folder / ".gitignore").exists():
            ignore.write_text(_IGNORE, encoding="utf-8")
            written.append(".gitignore")
    except OSError as error:
        raise InputError(
            "making a project", f"{error.filename}: {error.strerror}", "choose a folder that you can write to"
        ) from None
    notes += [
        f"your secrets open with {identity.path}: keep a copy of it",
        f"try it on this computer: cd {folder} && deploy up --provider local",
        "for a machine of your own, put its address into inventories/baremetal.yaml",
    ]
    return {"files": written, "notes": notes}


def _valid(option: str, text: str, check: Callable[[str], str]) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise InputError("making a project", f'{option}: "{text}" {error}') from None


def _ssh_key() -> tuple[str, list[str]]:
    """The caller's SSH public key, ed25519 first; "" and a note when there is none that we can use."""
    from deployer.project import fields

    found = sorted(
        Path.home().glob(".ssh/*.pub"), key=lambda path: (path.name != "id_ed25519.pub", path.name)
    )
    for path in found:
        try:
            return fields.ssh_public_key(path.read_text(encoding="utf-8").strip()), []
        except (ValueError, OSError):
            continue
    return "", [
        "no SSH public key in ~/.ssh: make one (ssh-keygen -t ed25519) and put it under operators in stack.yaml; "
        "until then nobody is listed there, and this computer's identity opens the secrets"
    ]


def _operator(key: str, recipient: str) -> str:
    """The caller's entry; commented out without an SSH key."""
    name = "".join(c if c.isalnum() else "-" for c in getuser()).strip("-") or "me"
    lines = [
        f"- name: {name}",
        f"  ssh_key: {key or 'ssh-ed25519 AAAA... me@computer'}",
        f"  age: {recipient}",
    ]
    mark = "  " if key else "  # "
    return "".join(f"{mark}{line}\n" for line in lines)
