"""Carries out the proxy's steps. Run by the engine only."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra.api import StringCommand, operation

from deployer.components.proxy.spec import CA_ANSWERS, certificate_check
from deployer.ops.script import script

# Every so many seconds the certificate authorities are asked whether they are there; so often in a row they are not.
LOOK, SILENT = 15, 3


@operation()
def accept_configuration(wanted: str, live: str, digest: str) -> Generator[StringCommand, None, None]:
    """Let Caddy read `wanted` as its own user, with the keys that it names; then put it in the place of `live`.

    digest: of what `wanted` holds, so that the step runs again when it is another.
    """
    yield script(
        f"""
answer=$(runuser -u caddy -- env HOME=/var/lib/caddy caddy validate --adapter caddyfile --config {wanted} 2>&1) || {{
    echo "Caddy does not accept {wanted}; it goes on with what it has:" >&2
    printf '%s\\n' "$answer" | tail -n 3 >&2
    exit 1
}}
install -m 0644 {wanted} {live}.new
sync {live}.new
mv {live}.new {live}
""",
        folder="/var/lib/caddy",
    )


@operation()
def await_certificates(
    names: Sequence[str], directories: Sequence[str], seconds: int
) -> Generator[StringCommand, None, None]:
    """Wait until Caddy has a certificate for each name; say what the CAs answered when it gets none.

    Ends early where none of the directories answers at all.
    """
    checks = "\n    ".join(certificate_check(name) for name in names)
    # -k: Caddy judges their certificates, and says so in its journal.
    asks = "\n    ".join(
        f"curl -sSk -m 10 -o /dev/null {shlex.quote(url)} 2>>$answers && return" for url in directories
    )
    yield script(f"""
answers=$(mktemp)
trap 'rm -f $answers' EXIT
there() (
    {checks}
)
answered() {{
    : >$answers
    {asks}
    return 1
}}
silent=0 asked={LOOK} end=$((SECONDS + {seconds}))
while [ $SECONDS -lt $end ]; do
    ! there || exit 0
    if [ $SECONDS -ge $asked ]; then
        if answered; then silent=0; else silent=$((silent + 1)); fi
        if [ $silent -ge {SILENT} ]; then
            echo "none of the certificate authorities answers this machine:" {_words(directories)} >&2
            cat $answers >&2
            echo "check these addresses (acme.directories in the inventory), that the machine resolves names, and" \
                "that its network lets TCP 443 out" >&2
            exit 1
        fi
        asked=$((SECONDS + {LOOK}))
    fi
    sleep 1
done
echo "no certificate within {seconds} s for one of:" {_words(names)} >&2
echo "the names must lead to this machine from the internet, with port 80 open; the CAs said:" >&2
{CA_ANSWERS} | tail -n 4 >&2 || true
exit 1
""")


def _words(texts: Sequence[str]) -> str:
    return " ".join(shlex.quote(text) for text in texts)
