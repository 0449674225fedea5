from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deployer.components.proxy import routes
from deployer.components.proxy import spec as proxy
from deployer.core.component import Context
from deployer.core.errors import InputError
from deployer.core.machine import Machine
from deployer.core.manifest import Manifest, Process, Route
from deployer.core.model import Acme, Inventory, MailPolicy, Project, SmsPolicy, Stack
from deployer.core.resources import shipped
from deployer.flow.wanted import render

D = "{{ domain }}"
PROCESSES = (
    Process("web", "main", "run", port=8008, ready="http://127.0.0.1:{port}/health"),
    Process("side", "main", "run", port=8090),
    Process("worker", "main", "run"),
)
ROUTES = (
    Route(D, "/", respond="Hello from {{domain}}.", content_type="text/plain"),
    Route(D, "/_matrix", process="web"),
    Route(D, "/_matrix/identity/", process="side"),
    Route(
        D,
        "/.well-known/x",
        respond='{"at": "https://{{ domain }}"}',
        headers={"Access-Control-Allow-Origin": "*"},
    ),
    Route(f"id.{D}", "/", process="side"),
)
TWO = ("https://acme.one.example/directory", "https://acme.two.example/directory")

OWN_CA = Acme()


def manifest(listed: tuple[Route, ...] = ROUTES) -> Manifest:
    return Manifest("app", "1", Path("/nonexistent"), (), PROCESSES, (), listed, ())


def context(
    *,
    acme: Acme = OWN_CA,
    listed: tuple[Route, ...] = ROUTES,
    sms_apart: bool = False,
    address6: str = "",
) -> Context:
    machine = Machine("demo-app-1", "1", "running", "192.0.2.80", address6, private_address="10.0.0.80")
    other = Machine("demo-sms-1", "2", "running", "192.0.2.81", private_address="10.0.0.81")
    stack = Stack("demo", "example.test", "app", (), MailPolicy("a@example.test"), SmsPolicy())
    inventory = Inventory("local", "local", (), acme=acme)
    return Context(
        Project(Path("/nonexistent"), stack, inventory, manifest(listed)),
        machine,
        {each.name: each for each in (machine, other)},
        {"app": (machine.name,), "sms": (other.name if sms_apart else machine.name,)},
        {"sms_gateway/password": "canary-sms", "sms_gateway/auth_token": "canary-token"},
    )


def caddyfile(ctx: Context) -> str:
    [file] = [file for file in proxy.spec(ctx).files if file.path == proxy.WANTED]
    return render(file, Path("/nonexistent")).decode()


def block(text: str, head: str) -> str:
    """A block of the Caddyfile by its first line, up to the brace that closes it."""
    return re.search(rf"^{re.escape(head)} {{\n.*?^}}\n", text, re.MULTILINE | re.DOTALL)[0]  # type: ignore[index]


# --- routes ---


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ()),
        ("", ()),
        ("/*", ()),
        ("/a", ("/a", "/a/*")),
        ("/a/", ("/a/*",)),
        ("/a*", ("/a*",)),
        ("/a/*", ("/a/*",)),
    ],
)
def test_a_path_means_itself_and_what_is_below(path: str, expected: tuple[str, ...]) -> None:
    assert routes.patterns(path) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "`plain`"),
        ('{"a": "b\\n"}', '`{"a": "b\\n"}`'),
        ('a`b"c', '"a`b\\"c"'),
    ],
)
def test_texts_are_one_token(text: str, expected: str) -> None:
    assert routes.quote(text) == expected


@pytest.mark.parametrize("text", ["{$HOME}", "a`b\\", 'a`b\\"c'])
def test_what_a_caddyfile_cannot_say_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="write it in another way"):
        routes.quote(text)


@pytest.mark.parametrize("process", ["worker", "nobody"])
def test_a_route_to_a_process_without_a_port_is_refused(process: str) -> None:
    with pytest.raises(InputError, match=f"'{process}', which has no port"):
        routes.app_sites(manifest((Route(D, "/", process=process),)), "example.test")


def test_sites_are_the_hosts_and_longer_paths_come_first() -> None:
    sites = routes.app_sites(manifest(), "example.test")
    assert [site["host"] for site in sites] == ["example.test", "id.example.test"]
    handlers = sites[0]["handlers"]
    assert isinstance(handlers, list)
    assert [(handler["paths"], handler["upstream"], handler["ready"]) for handler in handlers] == [
        (("`/_matrix/identity/*`",), "127.0.0.1:8090", "`/.well-known/deploy-ready`"),
        (("`/.well-known/x`", "`/.well-known/x/*`"), "", ""),
        (("`/_matrix`", "`/_matrix/*`"), "127.0.0.1:8008", "`/health`"),
        ((), "", ""),
    ]
    assert handlers[1]["respond"] == '`{"at": "https://example.test"}`'
    assert handlers[3]["respond"] == "`Hello from example.test.`"
    assert sites[0]["catches_all"] is True


@pytest.mark.parametrize("app", sorted(path.name for path in (shipped("templates") / "apps").iterdir()))
def test_routes_of_every_shipped_app_can_be_written(app: str) -> None:
    text = (shipped("templates") / "apps" / app / "app.yaml").read_text(encoding="utf-8")
    says = yaml.safe_load(text)
    processes = tuple(
        Process(each["name"], "", "", port=each.get("port", 0), ready=each.get("ready", ""))
        for each in says["processes"]
    )
    listed = tuple(Route(**each) for each in says["routes"])
    whole = replace(manifest(listed), processes=processes)
    assert routes.hosts(whole, "example.test")
    assert routes.app_sites(whole, "example.test")


def test_what_may_hang_is_counted_apart() -> None:
    listed = (*ROUTES, Route(D, "/_matrix/client/*/sync", process="web", long_polls=True))
    [handler] = [
        one
        for one in routes.app_sites(manifest(listed), "example.test")[0]["handlers"]  # type: ignore[attr-defined]
        if "sync" in str(one["paths"])
    ]
    assert handler["upstream"] == "localhost:8008"
    assert handler["paths"] == ("`/_matrix/client/*/sync`", "`/_matrix/client/*/sync/*`")


def test_outside_probes_ask_the_app_where_they_can() -> None:
    assert routes.outside_probe(manifest(), "example.test", "example.test") == {
        "url": "https://example.test/_matrix",
        "status": "<500",
    }
    texts = manifest((Route(D, "/x", respond="I am {{ domain }}"),))
    assert routes.outside_probe(texts, "example.test", "example.test") == {
        "url": "https://example.test/x",
        "status": 200,
        "expect": "I am example.test",
    }


@pytest.mark.parametrize(
    ("bound", "inside", "outside"),
    [
        (routes.APP_BODY, ["0", "199999999", "99999999"], ["200000000", "999999999", "1000000000"]),
        (routes.SMS_BODY, ["0", "99999"], ["100000", "9999999999"]),
    ],
)
def test_the_length_that_is_refused_at_once_is_the_bound(
    bound: routes.Bound, inside: list[str], outside: list[str]
) -> None:
    assert [length for length in inside if re.search(bound.large, length)] == []
    assert [length for length in outside if not re.search(bound.large, length)] == []
    assert max(map(int, inside)) == bound.bytes


# --- spec ---


def test_every_name_gets_an_address_record() -> None:
    records = proxy.spec(context(address6="2001:db8::80")).dns
    assert [(record.name, record.type, record.value) for record in records] == [
        ("example.test", "A", "192.0.2.80"),
        ("example.test", "AAAA", "2001:db8::80"),
        ("id.example.test", "A", "192.0.2.80"),
        ("id.example.test", "AAAA", "2001:db8::80"),
        ("sms.example.test", "A", "192.0.2.80"),
        ("sms.example.test", "AAAA", "2001:db8::80"),
    ]
    assert {record.type for record in proxy.spec(context()).dns} == {"A"}


def test_the_world_reaches_80_and_443_by_tcp_alone() -> None:
    ports = proxy.spec(context()).ports
    assert [(port.number, port.protocol, port.sources) for port in ports] == [
        (80, "tcp", ("world",)),
        (443, "tcp", ("world",)),
    ]
    assert "protocols h1 h2\n" in caddyfile(context())


def test_probes_go_to_the_machines_own_address() -> None:
    probes = proxy.spec(context()).probes
    assert [(probe.name, probe.kind, probe.args["address"]) for probe in probes] == [
        ("https example.test", "https", "192.0.2.80"),
        ("https id.example.test", "https", "192.0.2.80"),
    ]


def test_without_acme_our_own_ca_signs_every_name() -> None:
    spec = proxy.spec(context())
    [leaf] = [file for file in spec.files if "/leaves.d/" in file.path]
    assert json.loads(leaf.content) == {
        "names": ["example.test", "id.example.test", "sms.example.test"],
        "owner": "caddy",
        "reload": ["caddy.service"],
    }
    text = caddyfile(context())
    assert "auto_https disable_certs\n" in text
    assert block(text, "(certificate)") == (
        "(certificate) {\n\ttls /etc/deploy/pki/leaves/proxy.crt /etc/deploy/pki/leaves/proxy.key\n}\n"
    )
    assert [step.name for step in spec.steps] == ["Caddy's configuration is valid"]
    assert spec.data == ()


def test_acme_directories_are_tried_in_order() -> None:
    ctx = context(acme=Acme(TWO, "ops@example.test", "ROOT PEM\n"))
    spec = proxy.spec(ctx)
    assert not [file for file in spec.files if "/leaves.d/" in file.path]
    [root] = [file for file in spec.files if file.path == proxy.ACME_ROOTS]
    assert (root.content, root.on_change) == ("ROOT PEM\n", "reload")
    text = caddyfile(ctx)
    assert "\temail `ops@example.test`\n" in text
    assert "disable_certs" not in text
    assert block(text, "(certificate)").split() == [
        *("(certificate)", "{", "tls", "{"),
        *("issuer", "acme", "{", "dir", f"`{TWO[0]}`", "trusted_roots", proxy.ACME_ROOTS, "}"),
        *("issuer", "acme", "{", "dir", f"`{TWO[1]}`", "trusted_roots", proxy.ACME_ROOTS, "}"),
        *("}", "}"),
    ]
    assert [step.name for step in spec.steps] == ["Caddy's configuration is valid", "certificates are there"]
    assert spec.steps[1].args["seconds"] == 180 + 3 * 91
    assert [data.where for data in spec.data] == ["/var/lib/caddy/.local/share/caddy"]


MANY = (*ROUTES, Route("*.{{ domain }}", "/", "web", ask="/known"))


def test_names_of_which_there_are_many_get_certificates_when_the_app_knows_them() -> None:
    ctx = context(acme=Acme(TWO[:1]), listed=MANY)
    text = caddyfile(ctx)
    assert "\ton_demand_tls {\n\t\task `http://127.0.0.1:8008/known`\n" in text
    assert "\timport on_demand\n" in block(text, "https://*.example.test")
    assert "\ton_demand\n" in block(text, "(on_demand)")
    assert "\timport certificate\n" in block(text, "https://example.test")
    spec = proxy.spec(ctx)
    # Nobody waits for them or asks for a page of theirs; the records are there.
    assert "*.example.test" not in spec.steps[1].args["names"]
    assert not [probe for probe in spec.probes if "*" in probe.name]
    assert ("*.example.test", "A") in {(record.name, record.type) for record in spec.dns}


def test_our_own_ca_signs_for_the_many_at_once() -> None:
    ctx = context(listed=MANY)
    [leaf] = [file for file in proxy.spec(ctx).files if "/leaves.d/" in file.path]
    assert "*.example.test" in json.loads(leaf.content)["names"]
    text = caddyfile(ctx)
    assert "on_demand_tls" not in text
    assert "tls /etc/deploy/pki/leaves/proxy.crt" in block(text, "(on_demand)")


def test_zerossl_is_asked_by_the_issuer_that_knows_its_accounts() -> None:
    text = caddyfile(context(acme=Acme((TWO[0], "https://acme.zerossl.com/v2/DV90"), "ops@example.test")))
    assert re.findall(r"issuer (\w+)", text) == ["acme", "zerossl"]
    assert "trusted_roots" not in text


def test_the_world_sees_only_the_sms_gateways_api() -> None:
    text = caddyfile(context())
    site = block(text, "https://sms.example.test")
    assert (
        "@api path `/2010-04-01` `/2010-04-01/*` `/sms/v4/mt` `/sms/v4/mt/*` `/inbound` `/inbound/*` "
        "`/health` `/health/*`\n"
    ) in site
    assert "handle {\n\t\t\trespond 404\n" in site
    assert site.count("reverse_proxy") == 3
    assert site.count("http://127.0.0.1:8070 {") == 3
    assert "canary" not in text


def test_a_gateway_on_another_machine_is_reached_over_our_tls() -> None:
    site = block(caddyfile(context(sms_apart=True)), "https://sms.example.test")
    assert site.count("https://demo-sms-1.example.test:8071 {") == 3
    assert site.count("tls_trusted_ca_certs /etc/deploy/pki/root.crt\n") == 3


def test_every_site_holds_bounds_and_hides() -> None:
    text = caddyfile(context())
    for host in ("example.test", "id.example.test", "sms.example.test"):
        site = block(text, f"https://{host}")
        for needed in (
            "import certificate",
            "import common",
            "import errors",
            "max_size",
            "encode zstd gzip",
        ):
            assert needed in site, (host, needed)
        assert site.count("import open\n") == site.count("\t\t\troute {\n") > 0
        assert "redir https://{host}{uri} 308" in block(text, f"http://{host}")
    assert "lb_try_duration 30s\n\tlb_try_interval 250ms" in block(text, "(patience)")
    assert 'header Retry-After "10"' in block(text, "(errors)")
    assert 'Strict-Transport-Security "max-age=31536000"' in block(text, "(common)")
    assert "request>uri regexp" in text


def test_another_configuration_runs_the_step_again() -> None:
    """Its test looks at the machine before the files are written, so the arguments must tell."""
    one, same = proxy.spec(context()).steps[0], proxy.spec(context()).steps[0]
    other = proxy.spec(context(listed=ROUTES[1:])).steps[0]
    assert one.args == same.args
    assert one.args["digest"] != other.args["digest"]
    assert one.stage == "configure"


def test_the_configuration_is_reloaded_and_the_unit_restarted() -> None:
    spec = proxy.spec(context())
    changes = {file.path: file.on_change for file in spec.files}
    assert changes == {
        proxy.WANTED: "reload",
        "/etc/systemd/system/caddy.service.d/deploy.conf": "restart",
        proxy.HOLD: "none",
        "/etc/deploy/pki/leaves.d/proxy.json": "none",
    }
    assert [(unit.name, unit.reload) for unit in spec.units] == [("caddy.service", True)]


def test_the_programs_are_well_formed() -> None:
    [hold] = [file for file in proxy.spec(context()).files if file.path == proxy.HOLD]
    checks = "\n".join(step.check for step in proxy.spec(context(acme=Acme(TWO))).steps)
    for text in (hold.content, checks):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
