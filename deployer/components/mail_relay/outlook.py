"""What `deploy doctor` asks of a mail machine, and the meaning of its answer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deployer.core.errors import DeployError
from deployer.core.resources import service_file


@dataclass(frozen=True)
class Outlook:
    """servers: mail server -> (whether it greeted us, what happened); one without an answer is missing.

    names: query -> addresses, () for none, None when nobody answered. helo: Postfix's EHLO name, "" without Postfix.
    """

    servers: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    helo: str = ""


def script(servers: Sequence[str], names: Sequence[str], seconds: float) -> str:
    """A bash script that tries port 25 of `servers` and looks up `names`, within `seconds`; for `parse`."""
    request = shlex.quote(json.dumps({"servers": list(servers), "names": list(names), "seconds": seconds}))
    program = service_file("mail_relay", "outlook.py")
    return f"exec python3 - {request} <<'DEPLOY_OUTLOOK'\n{program}\nDEPLOY_OUTLOOK\n"


def parse(output: str, machine: str = "") -> Outlook:
    """Raises DeployError when the machine answered something else."""
    try:
        answer = json.loads(output.strip().splitlines()[-1])
        servers = {name: (bool(ok), str(why)) for name, (ok, why) in answer["servers"].items()}
        names = {
            query: None if found is None else tuple(map(str, found))
            for query, found in answer["names"].items()
        }
        return Outlook(servers, names, str(answer["helo"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DeployError(
            "looking at the world from the mail machine",
            f"unexpected answer ({error})",
            "see whether python3 works there",
            machine=machine or None,
            detail=output[-500:],
        ) from None
