"""All managed files and directories of a machine, in one command."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from pyinfra.api import StringCommand, operation

_PROGRAM = Path(__file__).resolve().parent.parent / "engine" / "remote" / "tree.py"


@operation()
def placed(
    directories: Sequence[Sequence[object]],
    files: Sequence[Sequence[object]],
    remove: Sequence[str],
    managed: Mapping[str, str] | None,
    stale: Sequence[str] = (),
) -> Generator[StringCommand, None, None]:
    """Write what differs. directories: [path, mode, owner, group]; files: the same and the content in base64;
    remove: paths we wrote formerly; managed: path -> component, remembered on the machine (None: unchanged);
    stale: components whose applied digest is forgotten before anything is written."""
    request = {
        "directories": directories,
        "files": files,
        "remove": remove,
        "managed": managed,
        "stale": stale,
    }
    command = StringCommand(
        "python3 -c 'import sys,base64,zlib;"
        'exec(compile(zlib.decompress(base64.b64decode(sys.stdin.readline())),"deploy-tree","exec"))\''
    )
    program = base64.b64encode(zlib.compress(_PROGRAM.read_bytes())).decode()
    command.connector_arguments["_stdin"] = [program, json.dumps(request)]
    yield command
