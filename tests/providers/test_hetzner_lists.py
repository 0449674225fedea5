"""Provider hetzner: lists, offers, what is ours, and what was changed by hand. The servers are records only."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import hcloud
import pytest

from deployer.core.errors import DeployError
from deployer.core.machine import Machine
from deployer.core.provider import Keeping, Listing, Mending, Resource, ReverseDns
from deployer.core.resources import shipped
from deployer.flow import registry
from deployer.project import load
from tests.providers.hetzner_rig import (
    DEPLOYMENT,
    OTHER,
    SPEC,
    WHOLE,
    Vendor,
    by_hand,
    made,
    record,
    spec,
    vendor,
)
from tests.rig.hetzner import description

__all__ = ["vendor"]


class TestReading:
    def test_long_lists_come_whole(self, vendor: Vendor) -> None:
        client = by_hand(vendor)
        for number in range(60):
            client.networks.create(f"n{number}", "10.0.0.0/16", labels=OTHER.labels())
        names = [r.name for r in vendor.provider().resources() if r.deployment == OTHER]
        assert sorted(names) == sorted(f"n{number}" for number in range(60))

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("running", "running"),
            ("initializing", "starting"),
            ("starting", "starting"),
            ("rebuilding", "starting"),
            ("migrating", "starting"),
            ("stopping", "stopped"),
            ("off", "stopped"),
            ("deleting", "failed"),
            ("unknown", "failed"),
        ],
    )
    def test_every_state_has_its_word(self, vendor: Vendor, theirs: str, ours: str) -> None:
        made(vendor)
        vendor.fake.settle()
        record(vendor, "servers")["status"] = theirs
        assert [m.status for m in vendor.provider().list_machines(DEPLOYMENT)] == [ours]

    def test_offers_are_those_of_the_location_with_an_address(self, vendor: Vendor) -> None:
        offers = vendor.provider().offers()
        names = [offer.name for offer in offers]
        assert names[:2] == ["cx23", "cx33"]
        # Deprecated ones, those sold out here, and ARM are left out.
        assert not {"cx11", "cx22", "cpx12", "cax11"} & set(names)
        assert offers[0].price == pytest.approx(3.99)
        assert "cpx12" in [offer.name for offer in vendor.provider(location="nbg1").offers()]
        assert "cax11" in [offer.name for offer in vendor.provider(architecture="arm").offers()]
        assert len(vendor.provider(architecture="any").offers()) > len(offers)
        assert vendor.provider().volume_price(100) == pytest.approx(4.4)

    def test_capabilities(self, vendor: Vendor) -> None:
        provider = vendor.provider()
        for capability in (ReverseDns, Listing, Keeping, Mending):
            assert isinstance(provider, capability)

    def test_reverse_names_of_both_addresses(self, vendor: Vendor) -> None:
        told: list[tuple[str, str | None]] = []
        vendor.fake.reverse = lambda address, name: told.append((address, name))
        machine = made(vendor)
        provider = vendor.provider()
        provider.set_reverse_dns(machine, "mail.example.org")
        assert told == [(machine.address, "mail.example.org"), (machine.address6, "mail.example.org")]
        provider.set_reverse_dns(machine, "mail.example.org")
        assert len(told) == 2


class TestResources:
    def test_all_of_ours_can_be_deleted_in_the_order_listed(self, vendor: Vendor) -> None:
        made(vendor)
        vendor.provider(OTHER).create_machine(OTHER, spec("other-database-1"))
        client = by_hand(vendor)
        client.networks.create("somebody", "10.0.0.0/16")
        provider = vendor.provider()
        found = provider.resources()
        assert len(found) == len(WHOLE) * 2 - 1, "both use the same SSH key"
        volume = next(item for item in found if item.name == f"{SPEC.name}-data")
        assert (volume.data, volume.price, volume.currency) == (True, pytest.approx(0.88), "EUR")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", volume.created)
        for item in found:
            provider.delete_resource(item)
            provider.delete_resource(item)
        assert vendor.everything() == ["networks/somebody"]

    def test_what_lacks_our_label_is_refused(self, vendor: Vendor) -> None:
        network = by_hand(vendor).networks.create("somebody", "10.0.0.0/16", labels=OTHER.labels())
        wrong = Resource("network", str(network.id), "somebody", DEPLOYMENT)
        with pytest.raises(DeployError, match="does not carry the labels of trial@contract"):
            vendor.provider().delete_resource(wrong)
        assert vendor.everything() == ["networks/somebody"]

    def test_data_goes_only_when_no_machine_has_it(self, vendor: Vendor) -> None:
        machine = made(vendor)
        provider = vendor.provider()
        assert list(provider.delete_data(DEPLOYMENT)) == []
        volume = next(item for item in provider.resources() if item.data)
        with pytest.raises(DeployError, match="a server has it"):
            provider.delete_resource(volume)
        provider.delete_machine(machine)
        assert list(provider.delete_data(OTHER)) == []
        assert list(provider.delete_data(DEPLOYMENT)) == [f"{SPEC.name}-data"]
        assert vendor.everything() == []


class TestMending:
    """Each is a change by hand, what is said of it, and nothing more to say after it was mended."""

    def mended(self, vendor: Vendor, machine: Machine, *words: str) -> None:
        found = list(vendor.provider().drift(machine, SPEC))
        assert len(found) == len(words), found
        for text, expected in zip(found, words, strict=True):
            assert expected in text
        vendor.provider().mend(machine, SPEC)
        vendor.fake.settle()
        assert list(vendor.provider().drift(machine, SPEC)) == []
        assert vendor.ours() == WHOLE

    def test_untouched_there_is_nothing_to_say(self, vendor: Vendor) -> None:
        machine = made(vendor)
        vendor.fake.calls.clear()
        assert list(vendor.provider().drift(machine, SPEC)) == []
        assert {call.method for call in vendor.fake.calls.all} == {"GET"}

    def test_rules(self, vendor: Vendor) -> None:
        machine = made(vendor)
        wall = record(vendor, "firewalls")
        wall["rules"] = [rule for rule in wall["rules"] if rule["protocol"] != "udp"]
        wall["rules"][0] |= {"port": "3306", "protocol": "tcp"}
        self.mended(
            vendor, machine, "+ icmp from everywhere; + udp/443 from everywhere; - tcp/3306 from everywhere"
        )

    def test_a_firewall_taken_off_and_deleted(self, vendor: Vendor) -> None:
        machine = made(vendor)
        record(vendor, "firewalls")["applied_to"] = []
        self.mended(vendor, machine, f"does not guard {SPEC.name}")
        vendor.fake.store.tables["firewalls"].clear()
        self.mended(vendor, machine, "firewall trial-contract-database: missing")

    @pytest.mark.parametrize("kind", ["servers", "firewalls", "networks", "volumes"])
    def test_labels(self, vendor: Vendor, kind: str) -> None:
        machine = made(vendor)
        record(vendor, kind)["labels"] = {"theirs": "kept"}
        self.mended(vendor, machine, "without the label deploy-stack=trial, deploy-inventory=contract")
        assert record(vendor, kind)["labels"]["theirs"] == "kept"

    def test_labels_of_an_address(self, vendor: Vendor) -> None:
        machine = made(vendor)
        for address in vendor.fake.store.tables["primary_ips"].values():
            address["labels"] = {}
        self.mended(vendor, machine, "-ipv4: without the label", "-ipv6: without the label")

    def test_a_network_that_was_left(self, vendor: Vendor) -> None:
        machine = made(vendor)
        record(vendor, "servers")["private_net"] = []
        self.mended(vendor, machine, f"{SPEC.name} is not in it")

    def test_a_volume_unprotected_and_detached(self, vendor: Vendor) -> None:
        machine = made(vendor)
        record(vendor, "volumes").update(server=None, protection={"delete": False})
        self.mended(vendor, machine, "can be deleted by mistake", "not attached")

    def test_a_volume_grows_and_never_shrinks(self, vendor: Vendor) -> None:
        machine = made(vendor)
        before = record(vendor, "volumes")["size"]
        assert list(vendor.provider().drift(machine, replace(SPEC, volume=before - 1))) == []
        larger = replace(SPEC, volume=before + 10)
        (words,) = vendor.provider().drift(machine, larger)
        assert words.startswith(f"volume {SPEC.name}-data: {before} GiB, to be {before + 10} (0.")
        assert words.endswith(" EUR a month more)")
        vendor.provider().mend(machine, larger)
        assert record(vendor, "volumes")["size"] == before + 10
        assert list(vendor.provider().drift(machine, larger)) == []

    def test_a_reverse_name_changed_by_hand(self, vendor: Vendor) -> None:
        machine = made(vendor)
        provider = vendor.provider()
        assert set(provider.reverse_dns(machine)) == {machine.address, machine.address6}
        provider.set_reverse_dns(machine, "mail.example.org")
        assert set(provider.reverse_dns(machine).values()) == {"mail.example.org"}
        server = by_hand(vendor).servers.get_by_name(machine.name)
        assert server
        server.change_dns_ptr(machine.address, None)
        vendor.fake.calls.clear()
        assert provider.reverse_dns(machine)[machine.address] != "mail.example.org"
        assert provider.reverse_dns(machine)[machine.address6] == "mail.example.org"
        assert {call.path for call in vendor.fake.calls.all} == {f"/servers/{machine.id}"}
        provider.set_reverse_dns(machine, "mail.example.org")
        assert set(provider.reverse_dns(machine).values()) == {"mail.example.org"}

    def test_a_volume_that_is_gone_cannot_be_mended(self, vendor: Vendor) -> None:
        machine = made(vendor)
        vendor.fake.store.tables["volumes"].clear()
        assert list(vendor.provider().drift(machine, SPEC)) == [f"volume {SPEC.name}-data: missing"]
        with pytest.raises(DeployError, match="restore its data from a backup"):
            vendor.provider().mend(machine, SPEC)

    def test_a_machine_that_is_gone(self, vendor: Vendor) -> None:
        with pytest.raises(DeployError, match="no server of that name"):
            vendor.provider().drift(replace(made(vendor), id="1"), SPEC)


def test_every_call_of_a_life_is_as_the_vendor_describes_it(vendor: Vendor) -> None:
    if reason := description.why_not():
        pytest.skip(reason)
    machine = made(vendor)
    provider = vendor.provider()
    provider.check()
    provider.set_reverse_dns(machine, "mail.example.org")
    record(vendor, "firewalls")["rules"] = []
    provider.mend(machine, replace(SPEC, volume=SPEC.volume + 10))
    provider.delete_machine(machine)
    provider.delete_data(DEPLOYMENT)
    described = description.load()
    assert described
    for call in vendor.fake.calls.all:
        assert described.operation(call.method, call.path), call
    # And that a request which does not fit is found.
    with pytest.raises(hcloud.APIException, match="invalid_input"):
        by_hand(vendor).request("POST", "/networks", json={"name": "n", "ip_rnage": "10.0.0.0/16"})
    assert any("ip_rnage" in text for text in vendor.fake.violations)
    vendor.fake.violations.clear()


def test_the_examples_of_the_inventory_are_valid(tmp_path: Path) -> None:
    shutil.copy(shipped("inventories").parent / "stack.yaml", tmp_path)
    text = (shipped("inventories") / "hetzner.yaml").read_text(encoding="utf-8")
    for key in ("type: cx33", "network", "architecture"):
        assert f"# {key}" in text
        text = text.replace(f"# {key}", key)
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "hetzner.yaml").write_text(text, encoding="utf-8")
    project = load(tmp_path, "hetzner", None, options=registry.provider_options, environment={})
    assert project.inventory.machines[0].options == {"type": "cx33"}
    assert set(project.inventory.options) == {"location", "network", "architecture"}
    registry.provider(project, trust_first=False)
