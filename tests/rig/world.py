"""An internet in a box: a bridge with a machine that is DNS and certificate authority, and room for what else is outside.

Real machines from providers/local on a bridge of their own, so that nothing meets the operator's own demo.
Addresses below .10 belong to services that run beside the tests: .2 receiving mail server, .3 and .4 carriers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import dns.query
import dns.rcode
import dns.update
import pytest

from deployer.core.keytext import public_ssh
from deployer.core.machine import Deployment, Machine, MachineSpec
from deployer.pki import keys
from providers import local
from tests.rig.remote import Remote

CHECKOUT = Path(__file__).resolve().parents[2]
# Zone of the stacks under test, and of a mail vendor's customers elsewhere.
ZONES = ("social.test", "mailbox.test")
# A zone that is given out and changed for whoever has the key only (TSIG, hmac-sha256).
KEYED = "keyed.test"
KEY = ("deploy.keyed.test", "c2VjcmV0IG9mIHRoZSByaWcsIDMyIGJ5dGVzIGxvbmc=")
# Two runs on one computer need two numbers.
NUMBER = int(os.environ.get("DEPLOY_RIG", "0"))
PREFIX = f"10.{230 + NUMBER}.0"
REVERSE = f"0.{230 + NUMBER}.10.in-addr.arpa"
GATEWAY, MAIL, CARRIER_A, CARRIER_B = (f"{PREFIX}.{last}" for last in (1, 2, 3, 4))


def why_not() -> str:
    """Why real machines cannot run here; "" when they can."""
    if not sys.platform.startswith("linux"):
        return "real machines need Linux"
    if os.geteuid() != 0:
        return "real machines need root: sudo bin/test"
    return ""


class World:
    """One bridge with its services; `folder` holds everything, and is removed at the end."""

    def __init__(self, folder: Path, bridge: str = f"dtest{NUMBER}", prefix: str = PREFIX) -> None:
        self.folder = folder
        self.options: dict[str, object] = {
            "bridge": bridge,
            "subnet": f"{prefix}.0/24",
            "state_dir": str(folder / "machines"),
        }
        self.deployment = Deployment("rig", "world")
        self.provider = local.make(self.options, self.deployment)
        self.internet: Machine
        self.shell: Remote
        self.acme_ca = ""

    # --- life ---

    def start(self) -> None:
        self.provider.check()
        self.provider.prepare()
        self.internet, self.shell = self.bare("internet")
        for address in (MAIL, CARRIER_A, CARRIER_B):
            subprocess.run(
                ["ip", "address", "replace", f"{address}/24", "dev", str(self.options["bridge"])], check=True
            )
        self.shell.run(
            "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -q -y install --no-install-recommends"
            " bind9 pebble openssl",
            timeout=300,
        )
        self._start_dns()
        self._start_acme()

    def start_names(self) -> None:
        """DNS alone, for who needs no more of the internet."""
        self.internet, self.shell = self.bare("internet")
        self.shell.run(
            "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -q -y install --no-install-recommends"
            " bind9",
            timeout=300,
        )
        self._start_dns()

    def stop(self) -> None:
        """Delete every machine on the bridge: ours, and those of deployments whose test broke off."""
        for path in sorted((self.folder / "machines" / "machines").glob("*.json")):
            if not path.exists():
                # It went with another one of its deployment.
                continue
            labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
            owner = Deployment(labels["deploy-stack"], labels["deploy-inventory"])
            provider = local.make(self.options, owner)
            for machine in provider.list_machines(owner):
                provider.delete_machine(machine)

    def bare(self, name: str, *layers: Path) -> tuple[Machine, Remote]:
        """A machine with nothing but Debian (or what `layers` have installed), and a connection to it."""
        key, host_key = keys.ssh(), keys.ssh()
        spec = MachineSpec(
            name,
            ("all",),
            ssh_keys=(public_ssh(key),),
            host_key=host_key,
            host_key_public=public_ssh(host_key),
        )
        provider = self.provider
        if layers:
            named = [str(layer) for layer in layers]
            provider = local.make({**self.options, "layer": named}, self.deployment)
        machine = provider.create_machine(self.deployment, spec)
        return machine, Remote(machine.address, key, public_ssh(host_key))

    # --- DNS ---

    def _start_dns(self) -> None:
        upstream = " ".join(f"{name};" for name in _resolvers())
        self.shell.write(
            "/etc/bind/named.conf",
            'options { directory "/var/cache/bind"; recursion yes; allow-query { any; }; allow-recursion { any; };'
            f" forward only; forwarders {{ {upstream} }}; dnssec-validation no; listen-on {{ any; }}; }};\n"
            + "".join(
                f'zone "{zone}" {{ type primary; file "/var/lib/bind/{zone}"; allow-update {{ any; }};'
                f" allow-transfer {{ any; }}; }};\n"
                for zone in (*ZONES, REVERSE)
            )
            + f'key "{KEY[0]}" {{ algorithm hmac-sha256; secret "{KEY[1]}"; }};\n'
            + f'zone "{KEYED}" {{ type primary; file "/var/lib/bind/{KEYED}";'
            f' allow-update {{ key "{KEY[0]}"; }}; allow-transfer {{ key "{KEY[0]}"; }}; }};\n',
        )
        address = self.internet.address
        head = f"$TTL 1\n@ IN SOA ns.{ZONES[0]}. root.{ZONES[0]}. 1 60 60 60 1\n@ IN NS ns.{ZONES[0]}.\n"
        self.shell.write(f"/var/lib/bind/{ZONES[0]}", head + f"ns IN A {address}\n")
        self.shell.write(f"/var/lib/bind/{KEYED}", head + f"ns IN A {address}\n")
        self.shell.write(f"/var/lib/bind/{ZONES[1]}", head + f"@ IN MX 10 mx.{ZONES[1]}.\nmx IN A {MAIL}\n")
        reverse = head + "$GENERATE 1-254 $ IN PTR host-$.rig.test.\n"
        self.shell.write(f"/var/lib/bind/{REVERSE}", reverse)
        self.shell.run("chown -R bind: /var/lib/bind && systemctl restart named && named-checkconf")

    def set_records(self, records: Sequence[dict[str, object]]) -> None:
        """Put records (name, type, value, ttl) into their zones by RFC 2136, as an operator would by hand."""
        for record in records:
            name, kind, value = (str(record[key]) for key in ("name", "type", "value"))
            zone = next(zone for zone in (*ZONES, "in-addr.arpa") if name.endswith(zone))
            zone = REVERSE if zone == "in-addr.arpa" else zone
            update = dns.update.UpdateMessage(zone)
            if kind == "TXT":
                value = " ".join(f'"{value[i : i + 250]}"' for i in range(0, len(value), 250))
            elif kind in ("CNAME", "PTR") or (kind == "MX" and not value.endswith(".")):
                value = value.rstrip(".") + "."
            update.replace(f"{name}.", 1, kind, value)
            answer = dns.query.tcp(update, self.internet.address, timeout=10)
            assert answer.rcode() == dns.rcode.NOERROR, (record, dns.rcode.to_text(answer.rcode()))

    def set_reverse(self, address: str, name: str) -> None:
        last = address.rsplit(".", 1)[1]
        self.set_records([{"name": f"{last}.{REVERSE}", "type": "PTR", "value": name}])

    # --- ACME ---

    @property
    def directory(self) -> str:
        return f"https://acme.{ZONES[0]}:14000/dir"

    def _start_acme(self) -> None:
        self.set_records([{"name": f"acme.{ZONES[0]}", "type": "A", "value": self.internet.address}])
        self.shell.run(
            "mkdir -p /etc/pebble && cd /etc/pebble && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
            f" -nodes -days 30 -keyout key.pem -out cert.pem -subj /CN=acme.{ZONES[0]}"
            f" -addext subjectAltName=DNS:acme.{ZONES[0]} 2>/dev/null"
        )
        config = {
            "pebble": {
                "listenAddress": "0.0.0.0:14000",
                "managementListenAddress": "0.0.0.0:15000",
                "certificate": "/etc/pebble/cert.pem",
                "privateKey": "/etc/pebble/key.pem",
                "httpPort": 80,
                "tlsPort": 443,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": False,
            }
        }
        self.shell.write("/etc/pebble/config.json", json.dumps(config))
        self.shell.run(
            "systemd-run --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0"
            f" $(command -v pebble) -config /etc/pebble/config.json -dnsserver {self.internet.address}:53"
        )
        directory_ca = self.shell.run("cat /etc/pebble/cert.pem")
        root = _fetch(f"https://{self.internet.address}:15000/roots/0")
        self.acme_ca = directory_ca + root


def _fetch(url: str) -> str:
    """A page of pebble's management port, which no client of the stack uses; retried until it listens."""
    context = ssl._create_unverified_context()
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _resolvers() -> list[str]:
    lines = Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines()
    return [line.split()[1] for line in lines if line.startswith("nameserver")]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """A world for one test run; skips, with the reason, where real machines cannot run."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="deploy-rig-", dir="/var/tmp"))
    made = World(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
