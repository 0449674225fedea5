"""The verbs about the toolkit itself: version, completion."""

from __future__ import annotations

import sys

import click

from deployer.cli import output, results
from deployer.cli.options import Verb, settings


@click.command(cls=Verb)
def version() -> None:
    """Show the versions, for a report of a bug.

    \b
    Example:
      deploy version
    """
    from deployer.flow.version import version as flow

    results.version(flow(), settings())


# Where each shell looks for it, and the words to say so.
_INSTALL = {
    "bash": "# Install:  deploy completion bash > ~/.local/share/bash-completion/completions/deploy\n"
    "# (make that folder first; a new shell has it; it needs the package bash-completion)",
    "zsh": "# Install:  deploy completion zsh > ~/.zfunc/_deploy\n"
    "# with these lines in ~/.zshrc:  fpath+=~/.zfunc; autoload -Uz compinit && compinit",
    "fish": "# Install:  deploy completion fish > ~/.config/fish/completions/deploy.fish",
}


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(sorted(_INSTALL)))
def completion(shell: str) -> None:
    """Print the completion script of your shell.

    It completes verbs, options and inventories. `deploy` must be on the PATH, for instance by a link to
    bin/deploy.

    \b
    Example:
      deploy completion bash > ~/.local/share/bash-completion/completions/deploy
      deploy completion zsh > ~/.zfunc/_deploy
      deploy completion fish > ~/.config/fish/completions/deploy.fish
    """
    from click.shell_completion import get_completion_class

    ctx = click.get_current_context()
    made = get_completion_class(shell)
    assert made is not None, shell
    script = made(ctx.find_root().command, {}, "deploy", "_DEPLOY_COMPLETE").source()
    # zsh wants its #compdef on the first line.
    first, _, rest = script.lstrip().partition("\n")
    output.write(f"{first}\n{_INSTALL[shell]}\n{rest}".rstrip())
    if sys.stdout.isatty():
        output.note("\n" + _INSTALL[shell].replace("# ", "", 1).replace("\n# ", "\n"))
