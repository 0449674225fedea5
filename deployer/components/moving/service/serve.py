"""`move.py serve`: what a peer's SSH key may do here, and nothing else. sshd starts it in place of the peer's command."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any

from ground import Failure

Body = dict[str, Any]


def serve(config: Body) -> int:
    """The peer's command stands in SSH_ORIGINAL_COMMAND: `agent VERB`, or rsync's other end."""
    try:
        words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    except ValueError as error:
        raise Failure("serving a peer", str(error), "a mistake of ours") from None
    if words[:1] == ["rsync"]:
        import sending

        command = sending.server(config, words)
        os.execvp(command[0], command)
    import agent

    if len(words) != 2 or words[0] != "agent" or words[1] not in agent.VERBS:
        raise Failure(
            "serving a peer", f"{' '.join(words[:2]) or 'a shell'} is not for peers", "a mistake of ours"
        )
    text = sys.stdin.read(1 << 16)
    if not text.strip():
        raise Failure("serving a peer", "nothing was asked: the peer has gone", "it asks again")
    body = json.loads(text)
    if not isinstance(body, dict):
        raise Failure("serving a peer", "its words are no JSON object", "a mistake of ours")
    print(json.dumps(agent.VERBS[words[1]](config, body)), flush=True)
    return 0
