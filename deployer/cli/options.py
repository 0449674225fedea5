"""What all verbs share: the global options, which may stand before or after the verb, and the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from deployer.core.errors import InputError
from deployer.core.resources import shipped

if TYPE_CHECKING:
    from deployer.flow.request import Request

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """The global options of this run."""

    project: Path = Path(".")
    json: bool = False
    verbose: bool = False
    debug: bool = False
    identity: Path | None = None

    @property
    def root(self) -> Path:
        return self.project.expanduser().resolve()


def settings(ctx: click.Context | None = None) -> Settings:
    """The settings of the running command."""
    found = (ctx or click.get_current_context()).find_root().ensure_object(Settings)
    assert isinstance(found, Settings)
    return found


def _store(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    # Both the group and the verb have the option: what was not written must not undo what was.
    if value not in (None, False):
        setattr(settings(ctx), str(option.name), value)


def global_options(hidden: bool) -> list[click.Option]:
    """The global options. hidden: as a verb has them, without filling its help."""
    folder = click.Path(file_okay=False, path_type=Path)
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    common: dict[str, Any] = {"expose_value": False, "callback": _store, "hidden": hidden, "is_eager": True}
    return [
        click.Option(
            ["--project"],
            type=folder,
            metavar="DIR",
            help="The project's folder, with stack.yaml; the current folder otherwise.",
            **common,
        ),
        click.Option(
            ["--json"], is_flag=True, help="JSON lines on standard output: events, then the result.", **common
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, help="Show every step, change and log line.", **common
        ),
        click.Option(
            ["--debug"], is_flag=True, help="On a failure, show where in the toolkit it arose.", **common
        ),
        click.Option(
            ["--identity"],
            type=file,
            metavar="FILE",
            help="Age identity or SSH key that opens the secrets bundle.",
            **common,
        ),
    ]


class Verb(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options(hidden=True))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text("Global options (--project, --json, -v ...) may stand here too: deploy --help")


class Verbs(click.Group):
    """A group whose verbs are listed in the order of their definition, under headings."""

    command_class = Verb
    group_class = type

    def __init__(self, *args: Any, headings: dict[str, tuple[str, ...]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headings = headings or {}
        self.params.extend(global_options(hidden=not headings))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = self._headings or {"Commands": tuple(self.commands)}
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for heading, names in headings.items():
            with formatter.section(heading):
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit)) for name in names]
                formatter.write_dl(rows)


def inventories(root: Path) -> list[str]:
    """Names that --provider takes: the project's inventories and the shipped ones."""
    folders = [root / "inventories", shipped("inventories")]
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})


def complete_provider(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in inventories(settings(ctx).root) if name.startswith(incomplete)]


def target(command: F) -> F:
    """Add --provider and --inventory: where the stack runs. The command gets them by these names."""
    where = click.option(
        "--provider",
        metavar="NAME",
        shell_complete=complete_provider,
        help="Where: inventories/NAME.yaml of the project, or the shipped one of that name.",
    )
    file = click.option(
        "--inventory",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where: this inventory file.",
    )
    return where(file(command))


def targets(command: F) -> F:
    """Add --provider and --inventory that may be given several times; none means all."""
    where = click.option(
        "--provider",
        metavar="NAME",
        multiple=True,
        shell_complete=complete_provider,
        help="Only this inventory; may be given several times. All of them otherwise.",
    )
    file = click.option(
        "--inventory",
        metavar="FILE",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Only this inventory file; may be given several times.",
    )
    return where(file(command))


def need_project(chosen: Settings) -> Path:
    """The project's folder. Raises InputError when there is no stack.yaml in it."""
    root = chosen.root
    if (root / "stack.yaml").is_file():
        return root
    why = f"there is no stack.yaml in {root}" if root.is_dir() else f"the folder {root} does not exist"
    ways = ["go to the folder of your stack, or name it with --project DIR"]
    above = next((folder for folder in root.parents if (folder / "stack.yaml").is_file()), None)
    demo = Path(__file__).resolve().parents[2]
    if above:
        ways.append(f"this one is near: --project {above}")
    elif (demo / "stack.yaml").is_file():
        ways.append(f"try the demo stack: --project {demo}")
    ways.append("or make a stack of your own: deploy init DIR --name NAME --domain DOMAIN --app APP")
    raise InputError("finding the project", why, "; ".join(ways))


def anywhere() -> Request:
    """What is asked of the project, for verbs that name their inventories themselves."""
    from deployer.flow.request import Request

    chosen = settings()
    root = need_project(chosen)
    return Request(root=root, identity=chosen.identity, verbose=chosen.verbose, debug=chosen.debug)


def request(provider: str | None, inventory: Path | None, **more: Any) -> Request:
    """What the operator asked for. Raises InputError when the project or the target is missing."""
    from deployer.flow.request import Request

    chosen = settings()
    root = need_project(chosen)
    known = ", ".join(inventories(root))
    if provider and inventory:
        raise InputError("choosing where", "--provider and --inventory were both given", "give one of them")
    if not provider and not inventory:
        raise InputError(
            "choosing where", "no target was given", f"add --provider NAME ({known}), or --inventory FILE"
        )
    if inventory and not inventory.is_file():
        raise InputError(
            "choosing where",
            f"--inventory: there is no file {inventory}",
            f"or use --provider NAME ({known})",
        )
    return Request(
        root=root,
        provider=provider,
        inventory_file=inventory,
        identity=chosen.identity,
        verbose=chosen.verbose,
        debug=chosen.debug,
        **more,
    )
