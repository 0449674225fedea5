"""The only dynamic import: providers by name, and the components of each role."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from deployer.core.component import ComponentSpec, Context, Secret
from deployer.core.errors import InputError
from deployer.core.model import Project
from deployer.core.moving import concerning
from deployer.core.provider import Provider

# In the order in which they are activated: a port never opens before its neighbour behind it works, so the
# database comes before what connects to it and the proxy, which the public reaches, comes last.
COMPONENTS: tuple[tuple[str, str], ...] = (
    ("database", "database"),
    ("cache", "app"),
    ("mail_relay", "mail"),
    ("sms_gateway", "sms"),
    ("app", "app"),
    ("proxy", "app"),
    # On every machine, when there are repositories; it guards the units of all others.
    ("backups", ""),
    # On every machine, while the service moves from one deployment to another.
    ("moving", ""),
)


def _spec_module(component: str) -> Any:
    return importlib.import_module(f"deployer.components.{component}.spec")


def component_names() -> list[str]:
    return ["base", *(name for name, _ in COMPONENTS)]


def specs(ctx: Context) -> list[ComponentSpec]:
    """What every component wants on ctx.machine, base first."""
    others = [_spec_module(name).spec(ctx) for name, role in COMPONENTS if role and ctx.plays(role)]
    if ctx.project.inventory.repositories:
        others.append(_spec_module("backups").spec(ctx, others))
    if concerning(ctx.secrets, ctx.project.deployment):
        others.append(_spec_module("moving").spec(ctx, others, dict(COMPONENTS)))
    base: ComponentSpec = _spec_module("base").spec(ctx, others)
    return [base, *others]


def secrets(project: Project) -> list[Secret]:
    """All secrets that the project needs, each once; the CA before what it signs."""
    wanted = [Secret("pki/ca", "ca"), Secret("ssh/deploy", "ssh")]
    for machine in project.inventory.machines:
        wanted += [Secret(f"pki/issuer/{machine.name}", "issuer"), Secret(f"ssh/host/{machine.name}", "ssh")]
    for name in component_names():
        wanted += _spec_module(name).secrets(project)
    return list({secret.name: secret for secret in wanted}.values())


def provider_names() -> list[str]:
    import providers

    found = {module.name for module in pkgutil.iter_modules(providers.__path__)}
    return sorted(found - set(providers.SHARED))


def provider_module(name: str) -> ModuleType:
    if name not in provider_names():
        known = ", ".join(provider_names())
        raise InputError("reading the inventory", f"unknown provider {name!r}", f"known providers: {known}")
    return importlib.import_module(f"providers.{name}")


def provider(project: Project, *, trust_first: bool) -> Provider:
    """The inventory's provider. One whose machines exist already (it says so by FROM_FLOW) is told which they are,
    whether an unknown host key may be believed this once, and where to remember it."""
    module = provider_module(project.inventory.provider)
    options = dict(project.inventory.options)
    if hasattr(module, "FROM_FLOW"):
        machines = [{"name": entry.name, **entry.options} for entry in project.inventory.machines]
        # Beside the inventory, since it belongs to the project: who connects next wants the same keys.
        adopted = str(project.root / "inventories" / f"{project.inventory.name}.hosts")
        options |= {"machines": machines, "trust_first": trust_first, "adopted": adopted}
    made: Provider = module.make(options, project.deployment)
    return made


def sells(name: str) -> bool:
    """The provider has machine types to choose from: a machine's entry in the inventory may name one."""
    return "type" in provider_module(name).MACHINE_OPTIONS


def provider_options(name: str) -> tuple[Sequence[str], Sequence[str]]:
    """Keys allowed in the inventory's section of the provider, and in a machine's entry."""
    module = provider_module(name)
    return module.OPTIONS, module.MACHINE_OPTIONS
