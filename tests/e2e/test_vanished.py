"""The day it happens: a vendor vanishes whole, and the service comes back at another one, from what lies elsewhere.

Machines, volumes, API, DNS and object storage of the rig's Hetzner go at once, while somebody writes. What is left: two
repositories at others, the other DNS vendor, an age identity, and a computer that has never seen the stack. The parent
zone is never touched.
"""

from __future__ import annotations

import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import hcloud
import pytest

from tests.e2e import vendors
from tests.e2e.conftest import project
from tests.e2e.doors import Doors
from tests.e2e.matrix import Person, number
from tests.e2e.operator import Operator
from tests.e2e.test_backups import RECOVERY_POINT
from tests.e2e.writing import Writer, nothing_between_is_missing, numbers, unhindered
from tests.rig import cloudimage
from tests.rig.aws.fake import CREDENTIALS, REGION
from tests.rig.hetzner.machines import RealMachines
from tests.rig.mail_receiver import MailReceiver
from tests.rig.objects import Objects
from tests.rig.smpp_carrier import Carrier
from tests.rig.world import CARRIER_A, GATEWAY, MAIL, NUMBER, World

DOMAIN = "agora.social.test"
STACK = f"""\
name: agora
domain: {DOMAIN}
app: matrix
backup: {{files: 1}}
"""
# name, port. The first belongs to the vendor that vanishes.
STORES = (("own", 9201), ("east", 9202), ("west", 9203))
# Seconds of writing before the vendor vanishes, at least and at most.
SOONEST, LATEST = 75, 110


@pytest.mark.long
def test_a_vendor_vanishes_and_the_service_comes_back_elsewhere(
    rig: World, package_layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        stores = {}
        for name, port in STORES:
            host = f"{name}{NUMBER or ''}.social.test"
            store = Objects(tmp_path / name, host, (GATEWAY, port), name=name)
            stores[name] = stack.enter_context(store)
            stack.enter_context(store.known())
            rig.set_records([{"name": host, "type": "A", "value": GATEWAY}])
        reach = [store.reach for store in stores.values()]
        options = {**rig.options, "nameservers": [rig.internet.address], "reach": reach}
        layers = [package_layer, cloudimage.build(rig)]
        hardware = RealMachines(options, layers, rig.folder / "volumes")
        vendors.reachable6(rig, hardware)
        hetzner = vendors.hetzner(rig, hardware)
        stack.callback(hetzner.stop)
        hcloud.Client(hetzner.token, api_endpoint=hetzner.endpoint).zones.create(
            name="social.test", mode="primary"
        )
        receiver = stack.enter_context(
            MailReceiver((MAIL, 25), rig.internet.address, tmp_path / "mail", domains=("mailbox.test",))
        )
        carrier = stack.enter_context(Carrier(*vendors.ACCOUNT, host=CARRIER_A, port=2775))
        environment = {**vendors.ENVIRONMENT, "HCLOUD_TOKEN": hetzner.token}

        around: dict[str, Any] = {"names": [vendors.hetzner_names(rig, hetzner)], "stores": stores.values()}
        section = f"{{location: fsn1, endpoint: {hetzner.endpoint}}}"
        text = vendors.inventory(rig, "hetzner", section, **around)
        before = project(
            tmp_path / "first/project", DOMAIN, "hetzner", text, tmp_path / "first/home", "agora"
        )
        before.environment = environment
        (before.folder / "stack.yaml").write_text(STACK, encoding="utf-8")
        (before.folder / "acme.crt").write_text(rig.acme_ca, encoding="utf-8")
        for name, store in stores.items():
            (before.folder / f"{name}.crt").write_text(store.ca, encoding="utf-8")
        summary = before.good("up", "--yes").result
        doors = Doors(summary["machines"][0]["address"], rig.acme_ca)
        someone = _person(doors, receiver, carrier, 1)
        assert someone.sign_up().status == 200
        someone.log_in()
        unhindered(before, "agora-all-1", someone)
        room = someone.make_room()
        before.good("backup", "create")

        with Writer(someone, room) as writer:
            writer.wait_for(1)
            time.sleep(random.uniform(SOONEST, LATEST))
            # All at once.
            machines = rig.folder / "machines" / "machines"
            gone = time.time()
            for server in [*hetzner.store.tables["servers"].values()]:
                vendors.pull_the_plug(machines / server["name"])
                hardware.delete(server["name"])
            hetzner.stop()
            stores["own"].vanish()
        shutil.rmtree(rig.folder / "volumes", ignore_errors=True)
        assert writer.taken, "nobody wrote"

        # Another computer: an identity, and an inventory for the other vendor.
        aws = vendors.aws(rig, hardware)
        stack.callback(aws.close)
        after = Operator(tmp_path / "second/project", "aws", tmp_path / "second/home")
        _only_the_identity(before, after)
        section = f"{{region: {REGION}, endpoint: {aws.endpoint}}}"
        text = vendors.inventory(rig, "aws", section, **around)
        (after.folder / "inventories").mkdir(parents=True)
        (after.folder / "inventories/aws.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "west.crt").write_text(stores["west"].ca, encoding="utf-8")
        after.environment = {
            **environment,
            **CREDENTIALS,
            "DEPLOY_REPOSITORY_SECRET": stores["west"].secret,
        }
        west = stores["west"]
        url = f"s3://{west.key}@{west.host}:{west.port}/{west.bucket}?ca={tmp_path / 'west.crt'}"
        after.good("adopt", "--from", url)
        began = time.monotonic()
        done = after.good("restore", "--yes", "--old-is-dead").result
        seconds = time.monotonic() - began
        record = done["restore"]

        address = done["machines"][0]["address"]
        someone.doors = Doors(address, rig.acme_ca)
        # The name leads there.
        asked = dns.message.make_query(DOMAIN, "A")
        answer = dns.query.udp(asked, rig.internet.address, timeout=10).answer
        found = [str(item) for one in answer for item in one]
        assert found == [address], found
        someone.log_in()
        held = numbers(someone, room)
        last = nothing_between_is_missing(held)
        lost = gone - writer.taken[last]
        with capsys.disabled():
            print(
                f"\nvanished after {len(writer.taken)} writes; {last} came back; the newest of them was {lost:.1f} s old;"
                f" all probes green after {seconds:.0f} s {record['seconds']}; {len(record['lacks'])} picture(s) lacking"
            )
        assert lost <= RECOVERY_POINT
        for written, (uri, data) in writer.pictures.items():
            # Synapse keeps a picture abcd... at local_content/ab/cd/...
            named = [text.replace("/", "") for text in record["lacks"]]
            if written <= last and not any(uri.rsplit("/", 1)[1] in text for text in named):
                assert someone.download(uri) == data
        newcomer = _person(someone.doors, receiver, carrier, 2)
        assert newcomer.sign_up().status == 200
        newcomer.log_in()
        assert after.good("plan", "--exit-code").result["changes"] == []
        after.good("down", "--yes", "--destroy-data", "agora")


def _person(doors: Doors, receiver: MailReceiver, carrier: Carrier, sms: int) -> Person:
    """sms: which of the carrier's messages is this person's."""
    digits = number()
    return Person(
        doors,
        DOMAIN,
        mail=f"reader{digits}@mailbox.test",
        number=digits,
        mailbox=lambda to: receiver.wait_for(to).text,
        phone=lambda _: carrier.wait_message(30, count=sms).text,
    )


def _only_the_identity(before: Operator, after: Operator) -> None:
    """What a person carries from one computer to another."""
    found = [path for path in before.home.rglob("*") if path.is_file()]
    assert found, "the first computer has no identity"
    for path in found:
        target = after.home / path.relative_to(before.home)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
