"""From the checked files to the dataclasses of core/model.py, with defaults that depend on one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from deployer.core.machine import ROLES, SIZES, Size
from deployer.core.manifest import Manifest
from deployer.core.model import (
    Acme,
    BackupPolicy,
    Carrier,
    DoctorPolicy,
    Inventory,
    MachineEntry,
    MailPolicy,
    Operator,
    Smarthost,
    SmsPolicy,
    Stack,
)
from deployer.project import checks, repositories, zones
from deployer.project.document import Document
from deployer.project.fields import label
from deployer.project.mistakes import Mark, Mistakes, Place
from deployer.project.schema import (
    AcmeSection,
    CarrierSection,
    InventoryFile,
    SizeSection,
    SmarthostSection,
    StackFile,
)

# Where certificates come from unless the inventory says otherwise: two vendors, in this order.
PUBLIC_DIRECTORIES = (
    "https://acme-v02.api.letsencrypt.org/directory",
    "https://acme.zerossl.com/v2/DV90",
)


def stack(
    file: StackFile, document: Document, manifest: Manifest | None, app: str | None, mistakes: Mistakes
) -> Stack:
    """The stack; settings are the app's defaults with the operator's over them."""
    checks.unique(file.operators, "name", "operators", document, mistakes)
    settings: dict[str, object] = document.settle(("settings",)) if file.settings else {}
    settings = {key: value for key, value in settings.items() if value is not None}
    if manifest is not None:
        checks.known_keys(settings, manifest.settings, "settings", document, mistakes)
        for key in settings.keys() & manifest.settings.keys():
            _setting(key, settings[key], manifest, document, mistakes)
        settings = {**manifest.settings, **settings}
    _sender(file, document, mistakes)
    operators = []
    for index, item in enumerate(file.operators):
        if not item.age and item.ssh_key.split()[0] not in ("ssh-ed25519", "ssh-rsa"):
            place: Place = ("operators", index, "age")
            mistakes.add(
                document.mark(place), place, "is missing; age cannot encrypt to this kind of SSH key"
            )
        operators.append(Operator(item.name, item.ssh_key, item.age or item.ssh_key))
    return Stack(
        name=file.name,
        domain=file.domain,
        app=app or file.app,
        operators=tuple(operators),
        mail=MailPolicy(
            sender=file.mail.sender or f"noreply@{file.domain}",
            postmaster=file.mail.postmaster,
            dkim_selector=file.mail.dkim_selector,
            message_size=file.mail.message_size,
            mta_sts=file.mail.mta_sts,
        ),
        sms=_sms(file, document, mistakes),
        sizes={role: _size(getattr(file.sizes, role), SIZES[role]) for role in ROLES},
        settings=settings,
        upgrade_window=file.upgrade_window,
        timezone=file.timezone,
        backup=BackupPolicy(**file.backup.model_dump()),
    )


def _sender(file: StackFile, document: Document, mistakes: Mistakes) -> None:
    host = file.mail.sender.rpartition("@")[2]
    if host and host != file.domain:
        place: Place = ("mail", "sender")
        mistakes.add(
            document.mark(place), place, f'"{host}" is outside {file.domain}, and could not be signed for'
        )


def _sms(file: StackFile, document: Document, mistakes: Mistakes) -> SmsPolicy:
    policy = SmsPolicy(**file.sms.model_dump())
    host = urlsplit(policy.inbound_url).hostname
    if host and host not in policy.callback_hosts:
        place: Place = ("sms", "inbound_url")
        mistakes.add(document.mark(place), place, f'its host "{host}" must stand in sms.callback_hosts')
    return policy


def inventory(
    file: InventoryFile,
    document: Document,
    name: str,
    root: Path,
    options: Mapping[str, object],
    machine_options: Sequence[Mapping[str, object]],
    stack: Stack | None,
    mistakes: Mistakes,
) -> Inventory:
    """The inventory. name: the file's, without .yaml."""
    try:
        label(name)
    except ValueError as error:
        mistakes.add(Mark(document.file, 0), "", f'its name "{name}" {error}')
    catch = file.provider == "local" if file.catch is None else file.catch
    machines = _machines(file, machine_options, stack.name if stack else "stack")
    checks.machines(machines, document, mistakes)
    checks.unique(file.smarthosts, "name", "smarthosts", document, mistakes)
    checks.unique(file.carriers, "name", "carriers", document, mistakes)
    return Inventory(
        name=name,
        provider=file.provider,
        machines=machines,
        options=options,
        catch=catch,
        acme=_acme(file, document, root, mistakes),
        smarthosts=tuple(_smarthost(n, file, document, mistakes) for n in range(len(file.smarthosts))),
        carriers=tuple(_carrier(item) for item in file.carriers),
        doctor=DoctorPolicy(**file.doctor.model_dump()),
        dns=zones.services(document, stack.domain if stack else "", mistakes),
        repositories=repositories.build(file.repositories, document, root, mistakes),
    )


def _machines(
    file: InventoryFile, options: Sequence[Mapping[str, object]], stack: str
) -> tuple[MachineEntry, ...]:
    counted: Counter[str] = Counter()
    taken = {item.name for item in file.machines}
    entries = []
    for item, own in zip(file.machines, options, strict=True):
        roles = ROLES if "all" in item.roles else tuple(role for role in ROLES if role in item.roles)
        kind = "all" if roles == ROLES else "-".join(roles) or "base"
        name = item.name
        while not name:
            counted[kind] += 1
            candidate = f"{stack}-{kind}-{counted[kind]}"
            name = candidate if candidate not in taken else ""
        entries.append(MachineEntry(name, roles, own))
    return tuple(entries)


def _acme(file: InventoryFile, document: Document, root: Path, mistakes: Mistakes) -> Acme:
    if file.acme is None:
        return Acme() if file.provider == "local" else Acme(directories=PUBLIC_DIRECTORIES)
    section: AcmeSection = file.acme
    ca = checks.pem(section.trusted_ca, ("acme", "trusted_ca"), document, root, mistakes)
    return Acme(section.directories, section.email, ca)


def _smarthost(index: int, file: InventoryFile, document: Document, mistakes: Mistakes) -> Smarthost:
    item = file.smarthosts[index]
    doors = [(other.host, other.port) for other in file.smarthosts]
    if (item.host, item.port) in doors[:index]:
        here: Place = ("smarthosts", index, "host")
        # Postfix knows passwords by host and port.
        mistakes.add(document.mark(here), here, f'"{item.host}" port {item.port} is there twice')
    if bool(item.user) != bool(item.password):
        absent = "password" if item.user else "user"
        place: Place = ("smarthosts", index, absent)
        mistakes.add(document.mark(place), place, "is missing; user and password go together")
    return Smarthost(**{name: getattr(item, name) for name in SmarthostSection.model_fields})


def _carrier(item: CarrierSection) -> Carrier:
    return Carrier(**{name: getattr(item, name) for name in CarrierSection.model_fields})


def _size(section: SizeSection, default: Size) -> Size:
    """What was written, and the default for each key that was not."""
    written = {key: getattr(section, key) for key in section.model_fields_set}
    merged = replace(default, **written)
    return replace(merged, disk=math.ceil(merged.disk))


def _setting(key: str, value: object, manifest: Manifest, document: Document, mistakes: Mistakes) -> None:
    """A setting has the type of its default, and one of its choices where the manifest lists them."""
    default = manifest.settings.get(key)
    choices = manifest.choices.get(key)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}
    fits = type(value) is type(default) or (type(default) is float and type(value) is int)
    if choices and str(value) not in choices:
        expected = f"one of {', '.join(choices)}"
    elif default is not None and not fits:
        expected = words.get(type(default), "a section of keys")
    else:
        return
    place: Place = ("settings", key)
    source = document.mark(place).source
    quoted = f'"{source}" ' if source else ""
    mistakes.add(document.mark(place), place, f"{quoted}must be {expected}")
