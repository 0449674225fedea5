"""Provider hetzner: making and deleting machines, and what goes wrong with it. The servers are records only."""

from __future__ import annotations

from typing import Any

import pytest
from hcloud.images import Image
from hcloud.server_types import ServerType

from deployer.core.errors import CredentialError, DeployError, InputError, QuotaError
from deployer.core.machine import Machine, Opening, Size
from providers import hetzner
from providers.hetzner import api
from tests.providers.hetzner_rig import (
    DEPLOYMENT,
    OTHER,
    SPEC,
    VOLUME,
    WHOLE,
    Vendor,
    by_hand,
    made,
    record,
    spec,
    vendor,
)

__all__ = ["vendor"]


class TestCreate:
    def test_a_machine_has_all_its_parts_with_our_labels(self, vendor: Vendor) -> None:
        machine = made(vendor)
        assert vendor.ours() == WHOLE
        assert machine.labels == {
            "deploy-stack": "trial",
            "deploy-inventory": "contract",
            "deploy-roles": "database",
            "deploy-machine": SPEC.name,
        }
        for kind in ("servers", "volumes"):
            assert record(vendor, kind)["labels"] == machine.labels
        assert machine.private_address == "10.94.0.2"
        assert machine.address6.endswith("::1")
        assert machine.volume
        assert machine.type == "cx23"
        # A cx23, an address and 20 GiB.
        assert machine.price == pytest.approx(3.49 + 0.5 + 20 * 0.044)
        assert (machine.currency, machine.ours) == ("EUR", True)
        assert record(vendor, "servers")["image"]["name"] == "debian-13"

    def test_its_volume_is_empty_attached_and_protected(self, vendor: Vendor) -> None:
        machine = made(vendor)
        volume = record(vendor, "volumes")
        assert volume["protection"] == {"delete": True}
        # The first boot formats it, with a label and only when it is empty.
        assert volume["format"] is None
        assert str(volume["server"]) == machine.id

    def test_its_firewall_lets_in_what_the_spec_says_and_ping(self, vendor: Vendor) -> None:
        made(vendor)
        rules = record(vendor, "firewalls")["rules"]
        assert {(r["protocol"], r["port"], *r["source_ips"]) for r in rules} == {
            ("icmp", None, "0.0.0.0/0", "::/0"),
            ("tcp", "22", "192.0.2.0/24"),
            ("tcp", "443", "0.0.0.0/0", "::/0"),
            ("udp", "443", "0.0.0.0/0", "::/0"),
        }

    def test_ssh_is_let_in_where_no_opening_says_from_where(self, vendor: Vendor) -> None:
        made(vendor, openings=(Opening(25),))
        assert {r["port"] for r in record(vendor, "firewalls")["rules"]} == {None, "22", "25"}

    def test_root_gets_no_password_and_the_user_data_the_host_key(self, vendor: Vendor) -> None:
        machine = made(vendor)
        wanted = vendor.fake.hardware.made[machine.name]  # type: ignore[attr-defined]
        assert SPEC.host_key.splitlines()[1] in wanted.user_data
        assert wanted.private == "10.94.0.2/16"
        assert record(vendor, "ssh_keys")["public_key"] == " ".join(SPEC.ssh_keys[0].split()[:2])

    def test_a_second_call_makes_nothing(self, vendor: Vendor) -> None:
        first = made(vendor)
        vendor.fake.calls.clear()
        again = made(vendor)
        assert (again.id, again.address, again.private_address) == (
            first.id,
            first.address,
            first.private_address,
        )
        assert {call.method for call in vendor.fake.calls.all} == {"GET"}

    def test_a_stopped_machine_is_started(self, vendor: Vendor) -> None:
        machine = made(vendor)
        by_hand(vendor).servers.get_by_id(int(machine.id)).power_off().wait_until_finished()
        assert [m.status for m in vendor.provider().list_machines(DEPLOYMENT)] == ["stopped"]
        assert made(vendor).id == machine.id
        vendor.fake.settle()
        assert [m.status for m in vendor.provider().list_machines(DEPLOYMENT)] == ["running"]

    def test_a_key_that_is_there_already_is_used_and_left_to_its_owner(self, vendor: Vendor) -> None:
        by_hand(vendor).ssh_keys.create("somebody", SPEC.ssh_keys[0])
        machine = made(vendor)
        vendor.provider().delete_machine(machine)
        assert vendor.everything() == ["volumes/trial-database-1-data", "ssh_keys/somebody"]

    def test_a_volume_that_a_former_machine_left_is_used_again(self, vendor: Vendor) -> None:
        machine = made(vendor)
        number = record(vendor, "volumes")["id"]
        vendor.provider().delete_machine(machine)
        made(vendor)
        assert (record(vendor, "volumes")["id"], vendor.ours()) == (number, WHOLE)
        assert [str(record(vendor, "volumes")["server"])] == [
            machine.id for machine in vendor.provider().list_machines(DEPLOYMENT)
        ]

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"size": Size(2, 4, 20)}, "cx23"),
            ({"size": Size(4, 6, 20)}, "cx33"),
            ({"size": Size(1, 1, 100)}, "cx43"),
            ({"type": "ccx13"}, "ccx13"),
            ({"options": {"type": "cpx22"}}, "cpx22"),
            # An ARM type only by its name, and with an image for it.
            ({"type": "cax11"}, "cax11"),
        ],
    )
    def test_the_cheapest_type_that_fits_or_the_named_one(
        self, vendor: Vendor, changes: dict[str, Any], kind: str
    ) -> None:
        assert made(vendor, **changes).type == kind
        server = record(vendor, "servers")
        assert server["image"]["architecture"] == server["server_type"]["architecture"]


class TestDelete:
    def test_what_all_share_goes_with_the_last_machine(self, vendor: Vendor) -> None:
        first, second = made(vendor), made(vendor, name="trial-app-1", roles=("app",), volume=0)
        third = made(vendor, name="trial-app-2", roles=("app",), volume=0)
        assert len(vendor.fake.store.tables["networks"]) == 1
        assert len({m.private_address for m in (first, second, third)}) == 3
        provider = vendor.provider()
        provider.delete_machine(second)
        assert "firewalls/trial-contract-app" in vendor.ours()
        provider.delete_machine(third)
        assert vendor.ours() == WHOLE
        provider.delete_machine(first)
        assert vendor.ours() == [VOLUME]
        provider.delete_machine(first)

    def test_a_protected_server_is_left_alone(self, vendor: Vendor) -> None:
        machine = made(vendor)
        by_hand(vendor).servers.get_by_id(int(machine.id)).change_protection(delete=True)
        with pytest.raises(DeployError, match=r"protected.*\n.*take the protection off"):
            vendor.provider().delete_machine(machine)
        assert vendor.ours() == WHOLE

    def test_a_machine_that_is_being_deleted_is_made_anew(self, vendor: Vendor) -> None:
        machine = made(vendor)
        vendor.fake.store.durations["delete_server"] = 0.3
        by_hand(vendor).servers.get_by_id(int(machine.id)).delete()
        assert [m.status for m in vendor.provider().list_machines(DEPLOYMENT)] == ["failed"]
        again = made(vendor)
        assert (again.id != machine.id, again.address) == (True, machine.address)
        assert vendor.ours() == WHOLE


class TestSomebodyElses:
    def test_a_server_of_our_name_is_not_touched(self, vendor: Vendor) -> None:
        client = by_hand(vendor)
        client.servers.create(SPEC.name, ServerType(name="cx23"), Image(name="debian-13"))
        vendor.fake.settle()
        before = sorted(vendor.everything())
        with pytest.raises(DeployError, match="without the labels of trial@contract"):
            made(vendor)
        with pytest.raises(DeployError, match="without the labels"):
            vendor.provider().delete_machine(Machine(SPEC.name, "", "running", "192.0.2.1"))
        assert sorted(vendor.everything()) == before

    @pytest.mark.parametrize(
        "kind", ["volumes", "networks", "firewalls", "primary_ips"], ids=lambda kind: str(kind)
    )
    def test_a_part_of_our_name_is_not_used(self, vendor: Vendor, kind: str) -> None:
        made(vendor)
        vendor.provider().delete_machine(made(vendor))
        vendor.provider().delete_data(DEPLOYMENT)
        client = by_hand(vendor)
        body: dict[str, dict[str, object]] = {
            "volumes": {"name": f"{SPEC.name}-data", "size": 10, "location": "fsn1"},
            "networks": {"name": "trial-contract", "ip_range": "10.0.0.0/16"},
            "firewalls": {"name": "trial-contract-database"},
            "primary_ips": {
                "name": f"{SPEC.name}-ipv4",
                "type": "ipv4",
                "location": "fsn1",
                "assignee_type": "server",
            },
        }
        client.request("POST", f"/{kind}", json=body[kind])
        with pytest.raises(DeployError, match="without the labels"):
            made(vendor)
        assert not vendor.fake.store.tables["servers"]

    def test_other_deployments_are_not_listed_nor_deleted(self, vendor: Vendor) -> None:
        theirs = vendor.provider(OTHER).create_machine(OTHER, spec("other-database-1"))
        mine = made(vendor)
        provider = vendor.provider()
        assert [m.name for m in provider.list_machines(DEPLOYMENT)] == [mine.name]
        provider.delete_machine(mine)
        assert [m.id for m in provider.list_machines(OTHER)] == [theirs.id]
        assert list(vendor.provider(OTHER).drift(theirs, spec("other-database-1"))) == []


class TestErrors:
    def test_without_a_token(self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(api.TOKEN)
        with pytest.raises(CredentialError, match="HCLOUD_TOKEN is not set"):
            vendor.provider().check()

    def test_a_wrong_token_is_not_repeated_in_the_error(
        self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(api.TOKEN, "wrong" * 10)
        with pytest.raises(CredentialError, match=r"unauthorized: .*\(request [0-9a-f]+\)") as caught:
            vendor.provider().check()
        assert "wrongwrong" not in str(caught.value)
        assert len(vendor.fake.calls) == 1

    def test_a_token_that_may_only_read(self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(api.TOKEN, vendor.fake.readonly_token)
        vendor.provider().check()
        with pytest.raises(CredentialError, match="token_readonly"):
            made(vendor)
        assert vendor.everything() == []

    @pytest.mark.parametrize("kind", ["servers", "volumes", "primary_ips", "networks"])
    def test_a_quota_that_is_reached(self, vendor: Vendor, kind: str) -> None:
        vendor.fake.store.limits[kind] = 0
        with pytest.raises(QuotaError, match=rf"resource_limit_exceeded: .*{kind[:-1]}_limit") as caught:
            made(vendor)
        assert "raise the project's limit" in caught.value.next
        vendor.fake.store.limits[kind] = 9
        made(vendor)
        assert vendor.ours() == WHOLE

    def test_a_type_that_is_sold_out(self, vendor: Vendor) -> None:
        with pytest.raises(DeployError, match=r"resource_unavailable.*\n.*another type"):
            made(vendor, type="cpx12")
        assert made(vendor, type="cx33").type == "cx33"

    def test_a_type_that_is_unknown_or_too_large(self, vendor: Vendor) -> None:
        with pytest.raises(DeployError, match=r"no type 'cx99'.*\n.*cx23"):
            made(vendor, type="cx99")
        with pytest.raises(DeployError, match="no type in fsn1 has 500 cores"):
            made(vendor, size=Size(500))
        assert vendor.everything() == []

    def test_a_location_that_is_unknown(self, vendor: Vendor) -> None:
        vendor.provider().check()
        with pytest.raises(DeployError, match=r"no location 'mars1'.*\n.*fsn1, hel1"):
            vendor.provider(location="mars1").check()

    def test_an_error_of_the_vendor_is_tried_again_within_a_bound(self, vendor: Vendor) -> None:
        passing = vendor.fake.faults.error(500, "server_error", times=3)
        vendor.provider().check()
        assert passing.struck == 3
        lasting = vendor.fake.faults.error(503, "unavailable", times=None)
        with pytest.raises(DeployError, match="unavailable"):
            vendor.provider().check()
        assert lasting.struck == api.ATTEMPTS

    def test_a_rate_limit_is_waited_for(self, vendor: Vendor) -> None:
        once = vendor.fake.faults.error(429, "rate_limit_exceeded", times=1)
        vendor.provider().check()
        assert once.struck == 1

    def test_an_action_that_takes_too_long_or_fails(
        self, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vendor.fake.store.durations["create_volume"] = 60
        monkeypatch.setattr(api, "ACTION_TIMEOUT", 0.2)
        with pytest.raises(DeployError, match=r"create_volume \(action \d+\) is not done after 0.2 s"):
            made(vendor)
        for action in vendor.fake.store.actions.values():
            action.due = 0
        vendor.fake.settle()
        monkeypatch.setattr(api, "ACTION_TIMEOUT", 20)
        made(vendor)
        assert vendor.ours() == WHOLE

    def test_no_answer_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api, "PAUSE", 0.001)
        monkeypatch.setenv(api.TOKEN, "a" * 64)
        with pytest.raises(DeployError, match=r"no answer from http://127\.0\.0\.1:9"):
            hetzner.make({"endpoint": "http://127.0.0.1:9/v1"}, DEPLOYMENT).check()

    @pytest.mark.parametrize(
        ("options", "key"),
        [
            ({"loaction": "fsn1"}, "loaction"),
            ({"location": "Falkenstein!"}, "location"),
            ({"location": 1}, "location"),
            ({"network": "192.0.2.0/33"}, "network"),
            ({"network": "8.8.0.0/16"}, "network"),
            ({"architecture": "mips"}, "architecture"),
            ({"endpoint": "http://api.hetzner.cloud/v1"}, "endpoint"),
        ],
    )
    def test_options_that_are_wrong(self, options: dict[str, object], key: str) -> None:
        with pytest.raises(InputError, match=f"{key}: "):
            hetzner.make(options, DEPLOYMENT)
