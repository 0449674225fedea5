"""Carries out the proxy's steps. Run by the engine only."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra.api import StringCommand, operation

from deployer.components.proxy.spec import certificate_check
from deployer.ops.script import script


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
def await_certificates(names: Sequence[str], seconds: int) -> Generator[StringCommand, None, None]:
    """Wait until Caddy has a certificate for each name; say what the CAs answered when it gets none."""
    checks = "\n    ".join(certificate_check(name) for name in names)
    yield script(f"""
there() (
    {checks}
)
end=$((SECONDS + {seconds}))
while [ $SECONDS -lt $end ]; do
    there && exit 0
    sleep 1
done
echo "no certificate within {seconds} s for one of: {" ".join(names)}" >&2
echo "the names must lead to this machine from the internet, with port 80 open; the CAs said:" >&2
journalctl -u caddy.service -n 200 --no-pager -o cat | grep 'could not get certificate' | tail -n 4 >&2 || true
exit 1
""")
