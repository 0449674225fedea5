"""The errors an operator can see.

An error says what was being done, on which machine, why it failed and what to do next. It is raised
where it is known and printed in one place (cli/).
"""

from __future__ import annotations


class DeployError(Exception):
    """Something failed; the operator reads this text at 3 a.m.

    what:    what was being done, as a clause ("installing packages")
    why:     the reason, as close to the source as possible
    next:    what to do now
    machine: the machine's name, where there is one
    detail:  lines to show below, such as a service's last journal lines
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        why: str,
        next: str = "",
        *,
        machine: str | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why
        self.next = next
        self.machine = machine
        self.detail = detail

    def __str__(self) -> str:
        where = f" on {self.machine}" if self.machine else ""
        lines = [f"{self.what}{where}: {self.why}"]
        if self.detail:
            lines += ["  " + line for line in self.detail.rstrip().splitlines()]
        if self.next:
            lines.append(f"next: {self.next}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        return {
            "error": type(self).__name__,
            "what": self.what,
            "machine": self.machine,
            "why": self.why,
            "next": self.next,
            "detail": self.detail,
        }


class InputError(DeployError):
    """What the operator wrote (a file, an option, the environment) is wrong; nothing was touched."""

    exit_code = 2


class CredentialError(DeployError):
    """A vendor refused our credentials."""


class QuotaError(DeployError):
    """A vendor refused because a limit of the account is reached."""


class UnreachableError(DeployError):
    """A machine did not answer, or not as the one we know."""


class LeaseError(DeployError):
    """Somebody else is changing this deployment."""


class Interrupted(DeployError):
    """The operator pressed Ctrl-C."""

    exit_code = 130
