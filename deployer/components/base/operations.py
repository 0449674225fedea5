"""Steps of `base`, carried out by the engine."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra.api import StringCommand, operation

from deployer.components.base.volume import SIZE_CHECK, VOLUME
from deployer.ops.script import script


@operation()
def access_checked() -> Generator[StringCommand, None, None]:
    """Fail, with the line that is wrong, before sshd or the firewall could be restarted with a mistake."""
    yield script(
        "mkdir -p /run/sshd\nssh-keygen -A >/dev/null\n/usr/sbin/sshd -t\nnft -c -f /etc/nftables.conf"
    )


@operation()
def host_name(wanted: str) -> Generator[StringCommand, None, None]:
    """The running name; /etc/hostname is a managed file and counts from the next boot on."""
    yield script(f"hostname {shlex.quote(wanted)}")


@operation()
def host_table(source: str, digest: str) -> Generator[StringCommand, None, None]:
    """Put the file `source` into /etc/hosts between two marks, first; other lines stay. digest: of the content.

    localhost gets its two addresses where it lacks one, and no second time: programs bind to each that they find.
    """
    yield script(f"""
new=$(mktemp /etc/hosts.XXXXXX)
trap 'rm -f "$new"' EXIT
touch /etc/hosts
{{ cat {shlex.quote(source)}; sed '/^# deploy: begin/,/^# deploy: end/d' /etc/hosts; }} >"$new"
for own in 127.0.0.1 ::1; do
    grep -Eq "^$own[[:space:]].*\\blocalhost\\b" "$new" || echo "$own localhost" >>"$new"
done
chmod 0644 "$new"
# Where /etc/hosts is a mount of its own (a container), it cannot be replaced, only written.
mv -f "$new" /etc/hosts 2>/dev/null || cat "$new" >/etc/hosts
""")


@operation()
def time_zone(zone: str) -> Generator[StringCommand, None, None]:
    """Fails, naming it, for a zone that tzdata does not know."""
    path = shlex.quote(f"/usr/share/zoneinfo/{zone}")
    yield script(f"""
[ -f {path} ] || {{ echo "unknown time zone" {shlex.quote(zone)} >&2; exit 1; }}
ln -sfn {path} /etc/localtime.deploy-new
mv -fT /etc/localtime.deploy-new /etc/localtime
""")


@operation()
def trust_store(digest: str) -> Generator[StringCommand, None, None]:
    """Read /usr/local/share/ca-certificates again. digest: of our certificate there."""
    # Its words wait: it would die of a broken connection at the next one, and leave its temporary files.
    yield script('words=$(update-ca-certificates 2>&1) || { printf "%s\\n" "$words" >&2; exit 1; }')


@operation()
def certificates(leaves: Mapping[str, str], issuer: str) -> Generator[StringCommand, None, None]:
    """Make what is missing. leaves: content of each request; issuer: digest of the issuer's certificate."""
    yield script("/usr/local/lib/deploy/deploy-certs")


@operation()
def kernel_settings() -> Generator[StringCommand, None, None]:
    """Load all of sysctl.d, and note what was loaded."""
    yield script("""
systemctl restart systemd-sysctl.service
cat /etc/sysctl.d/*.conf | sha256sum >/var/lib/deploy/sysctl.sha256
""")


@operation()
def journal() -> Generator[StringCommand, None, None]:
    """Let journald read its settings, and move to the disk what it holds in memory."""
    yield script("""
systemctl restart systemd-journald.service
journalctl --flush
cp /etc/systemd/journald.conf.d/deploy.conf /var/lib/deploy/journald.applied
""")


@operation()
def units_started(units: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Enable and start units; one whose conditions do not hold here is left alone by systemd."""
    yield script(f"systemctl enable --now --quiet -- {' '.join(map(shlex.quote, units))}")


@operation()
def firewall() -> Generator[StringCommand, None, None]:
    """Load the declared rules again, all at once: established connections stay."""
    yield script("systemctl reload-or-restart nftables.service")


@operation()
def volume_filled() -> Generator[StringCommand, None, None]:
    """The data volume's file system as large as the volume, while it is in use."""
    # Asked here too: a step without a note of its last run does not look at its check.
    yield script(f'({SIZE_CHECK}) || resize2fs "$(findmnt -no SOURCE {VOLUME})" 2>&1')


@operation()
def owners_noted() -> Generator[StringCommand, None, None]:
    """Names and numbers of the system users, on the data volume."""
    yield script("""
cd /srv/data/.deploy
for table in passwd group; do
    getent $table | awk -F: '$3 >= 100 && $3 < 1000' | sort >$table.new
    sync $table.new
    mv $table.new $table
done
""")
