"""A stack that moves between two clouds and a machine of one's own, in one world.

One project folder, three inventories: hetzner, aws, baremetal. All of them have the same repositories (at two others), the
same names, authority, carrier and mail server around them.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import hcloud

from deployer.core.keytext import public_ssh
from deployer.core.machine import Deployment, MachineSpec
from deployer.pki import keys
from deployer.project.bundle import Bundle
from providers import local
from providers.local import processes
from tests.e2e import vendors
from tests.e2e.conftest import project
from tests.e2e.crowd import Crowd, Outside, Pace
from tests.e2e.doors import Doors
from tests.e2e.matrix import Person
from tests.e2e.operator import LONGEST, Operator
from tests.e2e.reports import HOST, Reports
from tests.e2e.scratch import console
from tests.rig import cloudimage
from tests.rig.aws.fake import CREDENTIALS, REGION
from tests.rig.mail_receiver import MailReceiver
from tests.rig.objects import Objects
from tests.rig.smpp_carrier import Carrier
from tests.rig.world import CARRIER_A, GATEWAY, MAIL, NUMBER, World

NAME = "agora"
DOMAIN = f"{NAME}.social.test"
STACK = f"""\
name: {NAME}
domain: {DOMAIN}
app: {{app}}
backup: {{{{files: 1}}}}
sms: {{{{per_number: 10000, per_prefix: 10000, per_day: 10000, callback_hosts: [{HOST}]}}}}
{{more}}"""
# Of each of the three: the last bytes of its addresses.
HETZNER, AWS = range(150, 190), range(190, 230)
STORES = (("east", 9302), ("west", 9303))
PLACES = ("hetzner", "aws", "baremetal")


@dataclass(frozen=True)
class App:
    """unit: of the process that people reach first; page: a path that answers 200; more: settings in stack.yaml."""

    name: str
    unit: str
    page: str
    more: str = ""


MATRIX = App("matrix", "matrix-synapse", "/_matrix/client/versions")


@dataclass
class Site:
    """A place that has a machine of the stack. folder: of the machine, on this computer."""

    name: str
    folder: Path
    address: str
    ca: str
    kind: App = MATRIX

    @property
    def disk(self) -> Path:
        """The machine's root folder, seen from outside."""
        return self.folder / "root"

    @property
    def leader(self) -> int:
        """Id of its systemd's process here; 0 when it does not run."""
        return processes.leader(self.folder)

    @property
    def runs(self) -> bool:
        return bool(self.leader)

    def postmaster(self, leader: int) -> str:
        """What its database says of itself in postmaster.pid: "ready" (takes writes), "standby", "starting", "stopping";
        "" when it does not run. Costs no process; what was killed leaves its last word."""
        try:
            text = Path(f"/proc/{leader}/root/var/lib/postgresql/17/main/postmaster.pid").read_text()
        except OSError:
            return ""
        return text.splitlines()[7].strip() if text.count("\n") > 7 else ""

    def console(self, command: str, *, check: bool = True) -> str:
        """Output of a shell command on the machine, without SSH."""
        return console(self.folder, command, check=check)

    def sql(self, text: str, database: str = "postgres") -> str:
        return self.console(f'runuser -u postgres -- psql -XAtq -d {database} -c "{text}"').strip()

    def pull_the_plug(self) -> None:
        vendors.pull_the_plug(self.folder)

    @property
    def primary(self) -> bool:
        """Whether its database takes writes."""
        if not self.runs:
            return False
        asked = "runuser -u postgres -- psql -XAtq -c 'SELECT pg_is_in_recovery()' 2>/dev/null"
        return self.console(asked, check=False).strip() == "f"

    @property
    def app(self) -> bool:
        """Whether the app's processes run on it."""
        asked = f"systemctl is-active {self.kind.unit}"
        return self.runs and "active" in self.console(asked, check=False).split()

    def answer(self) -> int:
        """Status of the public name at this machine's address; 0 when there is no answer."""
        doors = Doors(self.address, self.ca)
        try:
            return doors.request("GET", f"https://{DOMAIN}{self.kind.page}").status
        except OSError:
            return 0

    def moving(self, name: str) -> dict[str, Any]:
        """A state file of the move, read from outside; {} when there is none (yet)."""
        try:
            found = json.loads((self.disk / "var/lib/deploy/moving" / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


class Mover(Operator):
    """An operator with three inventories."""

    def at(self, place: str) -> Mover:
        return replace(self, inventory=place)


class Moving:
    """Use as a context. Nothing of the stack is up at first: `up("hetzner")`."""

    def __init__(self, rig: World, layer: Path | Sequence[Path], folder: Path, app: App = MATRIX) -> None:
        self.rig, self.folder, self.app = rig, folder, app
        # What machines start from, the uppermost first.
        self.layers = [layer] if isinstance(layer, Path) else list(layer)
        self._stack = ExitStack()
        self._clients = itertools.count(1)
        self._digits = itertools.count()
        self.stores: dict[str, Objects] = {}
        self.sites: dict[str, Site] = {}

    def __enter__(self) -> Moving:
        try:
            self._outside()
            self._vendors()
            self._metal()
            self._project()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # --- what is there before the stack ---

    def _outside(self) -> None:
        rig, enter = self.rig, self._stack.enter_context
        for name, port in STORES:
            host = f"{name}{NUMBER or ''}.social.test"
            store = enter(Objects(self.folder / name, host, (GATEWAY, port), name=name))
            enter(store.known())
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
            self.stores[name] = store
        self.receiver = enter(
            MailReceiver((MAIL, 25), rig.internet.address, self.folder / "mail", domains=("mailbox.test",))
        )
        user, password = vendors.ACCOUNT
        self.carrier = enter(Carrier(user, password, host=CARRIER_A, port=2775))
        self.reports = enter(Reports(rig))

    @property
    def _options(self) -> dict[str, object]:
        reach = [store.reach for store in self.stores.values()]
        return {**self.rig.options, "nameservers": [self.rig.internet.address], "reach": reach}

    def _vendors(self) -> None:
        rig = self.rig
        layers = [*self.layers, cloudimage.build(rig)]
        # Of this world alone: the vendors of the next one count their volumes from the first again.
        first, second = (
            vendors.Part(self._options, layers, rig.folder / f"volumes-{name}-{self.folder.name}", lasts)
            for name, lasts in (("hetzner", HETZNER), ("aws", AWS))
        )
        vendors.reachable6(rig, first)
        self.hetzner = vendors.hetzner(rig, first)
        self._stack.callback(self.hetzner.stop)
        hcloud.Client(self.hetzner.token, api_endpoint=self.hetzner.endpoint).zones.create(
            name="social.test", mode="primary"
        )
        self.aws = vendors.aws(rig, second)
        self._stack.callback(self.aws.close)

    def _metal(self) -> None:
        """Somebody else installed it; our key opens it."""
        key, host_key = keys.ssh(), keys.ssh()
        spec = MachineSpec(
            "metal",
            ("all",),
            ssh_keys=(public_ssh(key),),
            host_key=host_key,
            host_key_public=public_ssh(host_key),
        )
        owner = Deployment("rig", "metal")
        provider = local.make({**self._options, "layer": [str(one) for one in self.layers]}, owner)
        machine = provider.create_machine(owner, spec)
        self._stack.callback(lambda: provider.delete_machine(machine))
        self._metal_entry = f', address: {machine.address}, host_key: "{public_ssh(host_key)}"' + (
            f', address6: "{machine.address6}"' if machine.address6 else ""
        )
        self._metal_key, self._metal_address = key, machine.address

    def _project(self) -> None:
        rig = self.rig
        common: dict[str, Any] = {
            "names": [vendors.hetzner_names(rig, self.hetzner)],
            "stores": list(self.stores.values()),
        }
        texts = {
            "hetzner": vendors.inventory(
                rig, "hetzner", f"{{location: fsn1, endpoint: {self.hetzner.endpoint}}}", **common
            ),
            "aws": vendors.inventory(
                rig, "aws", f"{{region: {REGION}, endpoint: {self.aws.endpoint}}}", **common
            ),
            "baremetal": vendors.inventory(rig, "ssh", machine=self._metal_entry, **common),
        }
        home = self.folder / "home"
        made = project(self.folder / "project", DOMAIN, "hetzner", texts["hetzner"], home, NAME)
        for name, text in texts.items():
            (made.folder / f"inventories/{name}.yaml").write_text(text, encoding="utf-8")
        (made.folder / "stack.yaml").write_text(
            STACK.format(app=self.app.name, more=self.app.more), encoding="utf-8"
        )
        (made.folder / "acme.crt").write_text(rig.acme_ca, encoding="utf-8")
        for name, store in self.stores.items():
            (made.folder / f"{name}.crt").write_text(store.ca, encoding="utf-8")
        (home / ".ssh").mkdir(mode=0o700)
        key = home / ".ssh/id_ed25519"
        key.write_text(self._metal_key, encoding="utf-8")
        key.chmod(0o600)
        environment = {**vendors.ENVIRONMENT, "HCLOUD_TOKEN": self.hetzner.token, **CREDENTIALS}
        self.operator = Mover(made.folder, "hetzner", home, environment)

    # --- the stack ---

    def up(self, place: str) -> Site:
        """The first deployment of the stack."""
        self.operator.at(place).good("up", "--yes")
        return self.site(place)

    def site(self, place: str) -> Site:
        """Where the place's machine is now. Raises AssertionError where there is none."""
        machines = self.rig.folder / "machines" / "machines"
        if place == "baremetal":
            name, address = "metal", self._metal_address
        else:
            fake = self.hetzner if place == "hetzner" else self.aws
            image = (fake.hardware if place == "hetzner" else fake.behaviour.hardware).image  # type: ignore[union-attr]
            assert image.guests, f"{place} has no machine"
            guest = list(image.guests.values())[-1]
            name, address = guest.name, guest.address
        return Site(place, machines / name, address, self.rig.acme_ca, self.app)

    def switch_on(self, place: str) -> Site:
        """A machine whose plug was pulled, or that was switched off."""
        site = self.site(place)
        if place == "baremetal":
            owner = Deployment("rig", "metal")
            provider = local.make({**self._options, "layer": [str(one) for one in self.layers]}, owner)
            provider.create_machine(owner, MachineSpec("metal", ("all",)))
        else:
            hardware = self.hetzner.hardware if place == "hetzner" else self.aws.behaviour.hardware
            hardware.start(site.folder.name)
        return site

    def leads_to(self) -> list[str]:
        """The addresses of the public name."""
        asked = dns.message.make_query(DOMAIN, "A")
        answer = dns.query.udp(asked, self.rig.internet.address, timeout=10).answer
        return [str(item) for one in answer for item in one]

    def serving(self) -> list[str]:
        """The places whose app runs and whose database takes writes; two are a disaster."""
        return [site.name for site in self.all() if site.primary and site.app]

    def primaries(self) -> list[str]:
        return [site.name for site in self.all() if site.primary]

    def all(self) -> list[Site]:
        """Every place that has a machine now."""
        found = []
        for place in PLACES:
            with suppress(AssertionError):
                found.append(self.site(place))
        return found

    # --- the move ---

    def moved(self, *words: str, timeout: float = LONGEST) -> dict[str, Any]:
        """`migrate` with these words must end well; what it returned."""
        result: dict[str, Any] = self.operator.good("migrate", "--yes", *words, timeout=timeout).result
        return result

    def retire(self) -> dict[str, Any]:
        result: dict[str, Any] = self.operator.good("retire", "--yes").result
        return result

    @property
    def move(self) -> Any:
        """The newest move that the bundle tells of (deployer.core.moving.Move), or None."""
        from deployer.core.moving import newest

        identity = self.operator.home / ".config/deploy/identity.txt"
        return newest(Bundle(self.operator.folder, (), identity).values)

    # --- who uses it ---

    def crowd(self, place: str, writers: int = 3, pace: Pace | None = None) -> Crowd:
        """Signed up at the place that is live."""
        site = self.site(place)
        outside = Outside(
            domain=DOMAIN,
            server=self.rig.internet.address,
            ca=self.rig.acme_ca,
            receiver=self.receiver,
            carrier=self.carrier,
            reports=self.reports,
            account=self.account(place),
            addresses=self.client,
            digits=lambda: f"07700900{next(self._digits) % 300:03d}",
            lift=lambda people: _unhindered(site, people),
        )
        return Crowd(outside, writers, pace)

    def account(self, place: str) -> tuple[str, str]:
        """Of the SMS API: its name and token, which another one takes the place of when the old side is retired."""
        config = json.loads(self.site(place).console("cat /etc/deploy/sms_gateway/config.json"))
        self.reports.token = str(config["auth_token"])
        return str(config["account_sid"]), self.reports.token

    def client(self) -> str:
        """An address of a client, beside the bridge's subnet: machines answer to it by their gateway, which is here."""
        number = next(self._clients)
        address = f"{GATEWAY.rsplit('.', 2)[0]}.{1 + number // 250}.{number % 250 + 1}"
        bridge = str(self.rig.options["bridge"])
        subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", bridge], check=True, timeout=10)
        return address


def _unhindered(site: Site, people: list[Person]) -> None:
    rows = ", ".join(f"('@{one.name}:{one.domain}', 0, 0)" for one in people)
    columns = "(user_id, messages_per_second, burst_count)"
    site.sql(f"INSERT INTO ratelimit_override {columns} VALUES {rows}", "synapse")
