"""What the component wants on its machine, as values, and its templates rendered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from deployer.components.sms_gateway import actions, layout, spec
from deployer.core.component import ComponentSpec, File
from deployer.core.errors import InputError
from deployer.core.model import Carrier, SmsPolicy
from deployer.core.resources import find_template
from tests.components.sms_gateway.world import FIRST, SECOND, SECRETS, context

SERVICE = Path(spec.__file__).parent / "service"


def rendered(wanted: ComponentSpec, path: str) -> str:
    file = by_path(wanted)[path]
    if not file.template:
        return file.content
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = find_template(file.template, Path("/nowhere")).read_text(encoding="utf-8")
    return environment.from_string(source).render(**file.values)


def by_path(wanted: ComponentSpec) -> dict[str, File]:
    return {file.path: file for file in wanted.files}


def config(wanted: ComponentSpec) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(rendered(wanted, layout.CONFIG))
    return value


def groups(text: str) -> list[dict[str, str]]:
    """kannel.conf's groups."""
    found: list[dict[str, str]] = []
    for block in text.split("\n\n"):
        pairs = [line.split(" = ", 1) for line in block.splitlines() if " = " in line and line[0] != "#"]
        found.append(dict(pairs))
    return found


def smsc(text: str) -> list[dict[str, str]]:
    return [group for group in groups(text) if group.get("group") == "smsc"]


def test_every_module_of_the_service_is_shipped() -> None:
    assert set(layout.MODULES) == {path.name for path in SERVICE.glob("*.py")}


def test_every_file_renders_and_every_secret_is_kept_from_others() -> None:
    for ctx in (
        context(carriers=(FIRST, SECOND)),
        context(catch=True),
        context(),
        context(apart=True, carriers=(FIRST,)),
    ):
        wanted = spec.spec(ctx)
        for file in wanted.files:
            text = rendered(wanted, file.path)
            held = [value for value in (*SECRETS.values(), "pass2") if value in text]
            if held:
                assert file.secret and not file.mode & 0o007, (file.path, held)
        for unit in wanted.units:
            if unit.wanted:
                assert f"/etc/systemd/system/{unit.name}" in by_path(wanted)


def test_carriers_stand_in_order_of_preference() -> None:
    wanted = spec.spec(context(carriers=(FIRST, SECOND)))
    first, second = smsc(rendered(wanted, layout.KANNEL_CONFIG))
    assert (first["smsc-id"], first["host"], first["port"]) == ('"first"', '"smpp.first.example"', "2775")
    assert first["smsc-password"] == '"pa\\"ss\\\\1"'
    assert first["preferred-smsc-id"] == '"first"'
    assert "allowed-smsc-id" not in first, "what waits for a dead carrier must be free to take another"
    assert (second["host"], second["port"]) == ('"127.0.0.1"', str(layout.FIRST_TUNNEL + 1))
    assert second["msg-id-type"] == "0x01"
    assert config(wanted)["carriers"] == [
        {"name": "first", "sender": "4900001"},
        {"name": "second", "sender": ""},
    ]
    assert not wanted.warnings


def test_tls_goes_through_a_tunnel_that_checks_the_name() -> None:
    wanted = spec.spec(context(carriers=(FIRST, SECOND)))
    text = rendered(wanted, f"{layout.FOLDER}/stunnel.conf")
    assert "connect = smpp.second.example:3550" in text
    assert "checkHost = smpp.second.example" in text and "verifyChain = yes" in text
    assert "smpp.first.example" not in text
    assert "stunnel4" in wanted.packages
    assert "kannel-tls.service" in {unit.name for unit in wanted.units}
    address = Carrier("second", "203.0.113.9", 3550, "u", "p", tls=True)
    text = rendered(spec.spec(context(carriers=(address,))), f"{layout.FOLDER}/stunnel.conf")
    assert "checkIP = 203.0.113.9" in text and "sni" not in text


def test_without_tls_there_is_no_tunnel() -> None:
    wanted = spec.spec(context(carriers=(FIRST,)))
    assert "stunnel4" not in wanted.packages
    assert "kannel-tls.service" not in {unit.name for unit in wanted.units}


def test_without_a_carrier_it_runs_and_says_that_messages_wait() -> None:
    wanted = spec.spec(context())
    assert len(wanted.warnings) == 1 and "no SMS carrier" in wanted.warnings[0]
    (placeholder,) = smsc(rendered(wanted, layout.KANNEL_CONFIG))
    assert placeholder["dead-start"] == "true" and placeholder["allowed-smsc-id"] == "none"


def test_catch_takes_the_place_of_the_carriers() -> None:
    wanted = spec.spec(context(catch=True, carriers=(FIRST, SECOND)))
    (only,) = smsc(rendered(wanted, layout.KANNEL_CONFIG))
    assert only["smsc-id"] == "catch"
    assert config(wanted)["catch_dir"] == layout.CATCH
    assert layout.CATCH in {folder.path for folder in wanted.directories}
    assert "stunnel4" not in wanted.packages
    assert not wanted.warnings
    names = [probe.name for probe in wanted.probes]
    assert names == ["sms gateway", "sms carrier catch", "sms api"]


def test_on_one_machine_no_port_opens_and_the_app_speaks_by_loopback() -> None:
    ctx = context(carriers=(FIRST,))
    wanted = spec.spec(ctx)
    assert wanted.ports == ()
    assert config(wanted)["tls"] is None
    assert config(wanted)["database"]["sslmode"] == "disable"
    connection = spec.connection(ctx)
    assert connection["url"] == "http://127.0.0.1:8070"
    assert connection["openmarket_url"] == "http://127.0.0.1:8070/sms/v4/mt"
    assert connection["account_sid"] == layout.account_sid(ctx.project)
    assert str(connection["account_sid"]).startswith("AC") and len(str(connection["account_sid"])) == 34


def test_on_a_machine_of_its_own_the_app_alone_comes_in_over_tls() -> None:
    ctx = context(apart=True, carriers=(FIRST,))
    wanted = spec.spec(ctx)
    assert [(port.number, port.sources) for port in wanted.ports] == [(8071, ("app",))]
    assert config(wanted)["tls"]["port"] == 8071
    assert config(wanted)["trusted_proxies"] == ["127.0.0.1", "::1", "10.0.0.1"]
    database = config(wanted)["database"]
    assert (database["host"], database["sslmode"]) == ("demo-app-1.demo.example", "verify-full")
    assert database["sslrootcert"] == "/etc/deploy/pki/root.crt"
    leaf = json.loads(rendered(wanted, "/etc/deploy/pki/leaves.d/sms.json"))
    assert leaf == {
        "names": ["demo-sms-1.demo.example"],
        "owner": "sms-gateway",
        "reload": ["sms-gateway.service"],
    }
    from_the_app = spec.connection(
        type(ctx)(ctx.project, ctx.machines["demo-app-1"], ctx.machines, ctx.roles, ctx.secrets)
    )
    assert from_the_app["url"] == "https://demo-sms-1.demo.example:8071"


def test_policy_reaches_the_service() -> None:
    policy = SmsPolicy(
        countries=("DE",), per_day=7, callback_hosts=("app.example",), inbound_url="https://x.y/z"
    )
    held = config(spec.spec(context(policy=policy, carriers=(FIRST,))))["policy"]
    assert held["countries"] == ["DE"] and held["per_day"] == 7
    assert held["callback_hosts"] == ["app.example"] and held["inbound_url"] == "https://x.y/z"


def test_sender_is_the_stack_s_then_a_carrier_s_then_the_name() -> None:
    assert layout.sender(context(policy=SmsPolicy(sender="Chat"), carriers=(FIRST,)).project) == "Chat"
    assert layout.sender(context(carriers=(FIRST,)).project) == "4900001"
    assert layout.sender(context().project) == "demo"


def test_a_dead_carrier_degrades_and_does_not_fail() -> None:
    probes = {probe.name: probe for probe in spec.spec(context(carriers=(FIRST, SECOND))).probes}
    assert probes["sms carrier first"].degrades and probes["sms carrier second"].degrades
    assert not probes["sms gateway"].degrades
    assert probes["sms api"].kind == "sms_api" and probes["sms api"].outside
    for probe in probes.values():
        assert "canary" not in str(probe.args.get("script", ""))


def test_what_kannel_s_settings_cannot_hold_is_refused() -> None:
    bad = Carrier("first", "smpp.first.example", 2775, "user1", "pass\nsmsc = x")
    with pytest.raises(InputError, match="control character"):
        spec.spec(context(carriers=(bad,)))
    with pytest.raises(InputError, match="cannot be named catch"):
        spec.spec(context(carriers=(Carrier("catch", "h.example", 1, "u", "p"),)))


def test_debian_s_own_kannel_stays_off() -> None:
    assert {unit.name for unit in spec.spec(context()).units if not unit.wanted} == {"kannel.service"}


def test_queue_commands_run_as_the_service_s_user() -> None:
    assert actions.queue_hold()[:3] == ("runuser", "-u", "sms-gateway")
    assert actions.queue_release()[-2:] == ("queue", "release")
    assert actions.queue_status()[-1] == "status"
