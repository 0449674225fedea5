"""Bad input, as data: files in, the exact lines that the operator reads out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployer.core.errors import InputError
from deployer.core.machine import ROLES, SIZES, Size
from deployer.core.model import Acme, Operator, Project
from deployer.project import find_inventory, load, load_stack

STACK = """\
name: demo
domain: demo.test
app: chat
"""
INVENTORY = """\
provider: local
machines:
  - roles: [all]
"""
MANIFEST = """\
version: "1"
runtimes:
  - {name: server, kind: python, lock: server.lock}
processes:
  - {name: server, runtime: server, command: "{runtime}/bin/server", port: 8008}
files: [{template: config.j2, path: config.yaml}]
routes: [{host: "{domain}", path: /*, process: server}]
probes: [{name: reads, script: "echo ${shell} text stays"}]
databases: [chat]
settings: {registration: open, upload: 50, loud: false}
choices: {registration: [open, closed]}
"""
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIxnjcD736anfJVSO0rd203gyETZCAdLhy9JjtU0M9b7 anna@example"
AGE_KEY = "age1qspwygzfmrrn3cngjzl50ecylj54nckaa88vmscm7f4t9thuhf3sn0zhal"


def options(provider: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = {"local": (("bridge", "subnet"), ()), "ssh": ((), ("address", "user", "port", "host_key"))}
    if provider not in known:
        raise InputError("reading", f'unknown provider "{provider}"', "known providers: local, ssh")
    return known[provider]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "templates" / "apps" / "chat"
    folder.mkdir(parents=True)
    (folder / "app.yaml").write_text(MANIFEST)
    (folder / "server.lock").write_text("")
    (folder / "config.j2").write_text("")
    (tmp_path / "inventories").mkdir()
    (tmp_path / "inventories" / "here.yaml").write_text(INVENTORY)
    (tmp_path / "stack.yaml").write_text(STACK)
    return tmp_path


def loaded(root: Path, **environment: str) -> Project:
    return load(root, "here", None, options=options, environment=environment)


def mistakes(root: Path, **environment: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        loaded(root, **environment)
    assert caught.value.exit_code == 2
    return caught.value.detail.splitlines()


def test_a_minimal_project_is_complete(root: Path) -> None:
    project = loaded(root)
    assert str(project.deployment) == "demo@here"
    assert project.stack.mail.sender == "noreply@demo.test"
    assert project.stack.mail.message_size == 25 * 1024 * 1024
    assert (project.stack.upgrade_window, project.stack.timezone) == ("04:00", "Etc/UTC")
    assert project.stack.settings == {"registration": "open", "upload": 50, "loud": False}
    (machine,) = project.inventory.machines
    assert (machine.name, machine.roles) == ("demo-all-1", ROLES)
    assert project.inventory.catch
    assert project.inventory.acme == Acme()
    assert project.app.probes[0].script == "echo ${shell} text stays"


def test_machines_with_base_alone_need_no_stack(root: Path) -> None:
    (root / "inventories" / "here.yaml").write_text(
        "provider: local\nmachines:\n- roles: [base]\n- roles: [base]\n", encoding="utf-8"
    )
    found = [(one.name, one.roles) for one in loaded(root).inventory.machines]
    assert found == [("demo-base-1", ()), ("demo-base-2", ())]


def test_a_machine_with_base_alone_beside_the_stack(root: Path) -> None:
    (root / "inventories" / "here.yaml").write_text(
        "provider: local\nmachines:\n- roles: [all]\n- roles: [base]\n", encoding="utf-8"
    )
    found = [(one.name, one.roles) for one in loaded(root).inventory.machines]
    assert found == [("demo-all-1", ROLES), ("demo-base-1", ())]


def test_values_keep_the_text_that_was_written(root: Path) -> None:
    (root / "inventories" / "here.yaml").write_text(
        """\
provider: ssh
machines:
  - roles: [app, mail, sms]
    address: 192.0.2.10
    port: 2222
  - roles: [database]
    address: 192.0.2.11
    host_key: "0123"
carriers:
  - {name: one, host: smpp.example.net, port: 2775, system_id: 0123, password: 0x10, sender: on}
  - {name: two, host: 2001:DB8::1, port: "2775", system_id: no, password: "${PASSWORD}"}
smarthosts:
  - {name: a, host: smtp.example.net, user: 1e3, password: "$${PASSWORD}"}
"""
    )
    (root / "stack.yaml").write_text(
        STACK
        + """\
upgrade_window: 23:30
sizes: {database: {cores: 2, memory: 512 MiB, disk: 40}}
settings: {upload: 7, loud: true, registration: closed}
"""
    )
    project = loaded(root, PASSWORD="${X}: yes")
    first, second = project.inventory.carriers
    assert (first.system_id, first.password, first.sender) == ("0123", "0x10", "on")
    assert (second.host, second.port, second.system_id, second.password) == (
        "2001:db8::1",
        2775,
        "no",
        "${X}: yes",
    )
    assert project.inventory.smarthosts[0].user == "1e3"
    assert project.inventory.smarthosts[0].password == "${PASSWORD}"
    app, database = project.inventory.machines
    assert (app.name, app.roles, app.options) == (
        "demo-app-mail-sms-1",
        ("app", "mail", "sms"),
        {"address": "192.0.2.10", "port": 2222},
    )
    assert database.options["host_key"] == "0123"
    assert project.stack.upgrade_window == "23:30"
    assert project.stack.sizes == {**SIZES, "database": Size(2, 0.5, 40)}
    assert project.stack.settings == {"registration": "closed", "upload": 7, "loud": True}
    assert not project.inventory.catch
    assert project.inventory.acme.directories[0].startswith("https://acme-v02.api.letsencrypt.org")


def test_an_inventory_lays_its_keys_over_the_stacks(root: Path) -> None:
    (root / "stack.yaml").write_text(
        STACK + "mail: {sender: a@demo.test, dkim_selector: one}\nsms: {per_day: 5, sender: Demo}\n"
    )
    (root / "inventories" / "here.yaml").write_text(
        INVENTORY + "mail: {dkim_selector: two}\nsms:\n  per_day: 6\n"
    )
    stack = loaded(root).stack
    assert (stack.mail.sender, stack.mail.dkim_selector) == ("a@demo.test", "two")
    assert (stack.sms.per_day, stack.sms.sender) == (6, "Demo")


def test_a_mistake_in_an_overlaid_key_names_the_inventory(root: Path) -> None:
    (root / "stack.yaml").write_text(STACK + "sms: {per_day: 5, per_number: no}\n")
    (root / "inventories" / "here.yaml").write_text(INVENTORY + "sms:\n  per_day: many\n")
    assert mistakes(root) == [
        'stack.yaml:4: sms.per_number: "no" is not a whole number',
        'inventories/here.yaml:5: sms.per_day: "many" is not a whole number',
    ]


def test_operators(root: Path) -> None:
    (root / "stack.yaml").write_text(
        STACK
        + f"operators:\n  - name: anna\n    ssh_key: {SSH_KEY}\n  - {{name: ben, ssh_key: {SSH_KEY}, age: {AGE_KEY}}}\n"
    )
    assert loaded(root).stack.operators == (
        Operator("anna", SSH_KEY, SSH_KEY),
        Operator("ben", SSH_KEY, AGE_KEY),
    )


BAD_STACK = {
    "nothing": (
        "",
        [
            "stack.yaml:1: name: is missing",
            "stack.yaml:1: domain: is missing",
            "stack.yaml:1: app: is missing",
        ],
    ),
    "a list": ("- name\n", ['stack.yaml:1: must hold keys and values ("name: demo")']),
    "a colon": (
        "name: demo\ndomain: a: b\n",
        [
            'stack.yaml:2: not valid YAML: a ": " where none may stand; put the text in quotes, or check the indentation'
        ],
    ),
    "a tab": (
        STACK + "mail:\n\tsender: a@b.example\n",
        [
            "stack.yaml:5: not valid YAML: a character that may not start a value (a tab, @ or `); use spaces, or put "
            "the text in quotes"
        ],
    ),
    "an open bracket": (
        STACK + "operators: [\n",
        ["stack.yaml:5: not valid YAML: a value or a closing bracket is missing"],
    ),
    "a key twice": (
        STACK + "name: other\n",
        ["stack.yaml:4: name: written twice (first in line 1); keep one"],
    ),
    "a tag": (STACK + "timezone: !secret x\n", ['stack.yaml:4: timezone: a tag ("!secret") is not allowed']),
    "an endless alias": (
        STACK + "settings: &a\n  upload: *a\n",
        ["stack.yaml:5: settings.upload: an alias (*name) that holds itself"],
    ),
    "an unknown key": (
        STACK + "opertors: []\n",
        ['stack.yaml:4: opertors: unknown key; did you mean "operators"?'],
    ),
    "an unknown key below": (
        STACK + "mail:\n  sendr: a@b.example\n",
        ['stack.yaml:5: mail.sendr: unknown key; did you mean "sender"?'],
    ),
    "an unknown role's size": (
        STACK + "sizes:\n  web: {cores: 1}\n",
        ["stack.yaml:5: sizes.web: unknown key; known are: app, database, mail, sms"],
    ),
    "a section as text": (
        STACK + "mail: a@demo.test\n",
        [
            "stack.yaml:4: mail: must be a section of keys (sender, postmaster, dkim_selector, message_size, mta_sts), "
            "not a text"
        ],
    ),
    "a text as section": (
        "name: {a: b}\ndomain: demo.test\napp: chat\n",
        ["stack.yaml:1: name: must be a text, not a section of keys"],
    ),
    "a list as text": (
        STACK + "operators: anna\n",
        ['stack.yaml:4: operators: must be a list ("- item" lines, or [item, item]), not a text'],
    ),
    "no value": ("name:\ndomain: demo.test\napp: chat\n", ["stack.yaml:1: name: has no value"]),
    "an unknown app": (
        STACK.replace("chat", "chatt"),
        [
            'stack.yaml:3: app: unknown app "chatt"; did you mean "chat"? (known: bluesky, chat, mastodon, matrix, misago)'
        ],
    ),
    "a capital name": (
        STACK.replace("name: demo", "name: Demo"),
        [
            'stack.yaml:1: name: "Demo" is not a name: lower-case letters, digits and hyphens only, a letter first, no '
            "hyphen last"
        ],
    ),
    "a long name": (
        STACK.replace("name: demo", "name: " + 31 * "a"),
        [
            f'stack.yaml:1: name: "{31 * "a"}" is longer than 30 characters, which leaves no room for the names of machines'
        ],
    ),
    "a unit forgotten": (
        STACK + "mail: {message_size: 25}\n",
        [
            'stack.yaml:4: mail.message_size: "25" has no unit; write "25 MiB", or another of B, KiB, MiB, GiB, TiB'
        ],
    ),
    "a wrong unit": (
        STACK + "mail: {message_size: 25 MB}\n",
        [
            'stack.yaml:4: mail.message_size: "25 MB" is not a size; write a number and a unit, such as "25 MiB"'
        ],
    ),
    "a wrong address": (
        STACK + "mail: {sender: demo}\n",
        ['stack.yaml:4: mail.sender: "demo" is not a mail address'],
    ),
    "a cap of nothing": (
        STACK + "sms: {per_day: 0}\n",
        ['stack.yaml:4: sms.per_day: "0" must be at least 1'],
    ),
    "a country": (
        STACK + "sms: {countries: [DE, UK, XX]}\n",
        [
            'stack.yaml:4: sms.countries[1]: "UK" is not a country; did you mean "GB"?',
            'stack.yaml:4: sms.countries[2]: "XX" is not a country; write its two letters of ISO 3166 ("DE")',
        ],
    ),
    "a sender": (
        STACK + "sms: {sender: Our Community}\n",
        [
            'stack.yaml:4: sms.sender: "Our Community" is not an SMS sender: a number with country code, or at most '
            "eleven letters and digits"
        ],
    ),
    "an inbound address": (
        STACK + "sms: {inbound_url: 'https://a.example/in'}\n",
        ['stack.yaml:4: sms.inbound_url: its host "a.example" must stand in sms.callback_hosts'],
    ),
    "a time": (
        STACK + "upgrade_window: 4 am\n",
        [
            'stack.yaml:4: upgrade_window: "4 am" is not a time of day; write hours and minutes, such as "04:00"'
        ],
    ),
    "a time zone": (
        STACK + "timezone: Berlin\n",
        ['stack.yaml:4: timezone: "Berlin" is not a time zone; write a name such as "Europe/Berlin"'],
    ),
    "an unknown setting": (
        STACK + "settings: {uplod: 1}\n",
        ['stack.yaml:4: settings.uplod: unknown key; did you mean "upload"?'],
    ),
    "a setting's type": (
        STACK + "settings:\n  upload: lots\n",
        ['stack.yaml:5: settings.upload: "lots" must be a whole number'],
    ),
    "a setting's choice": (
        STACK + "settings: {registration: maybe}\n",
        ['stack.yaml:4: settings.registration: "maybe" must be one of open, closed'],
    ),
    "an operator without keys": (
        STACK + "operators:\n  - name: anna\n",
        ["stack.yaml:5: operators[0].ssh_key: is missing"],
    ),
    "no SSH key": (
        STACK + "operators:\n  - {name: anna, ssh_key: ssh-ed25519 AAAA}\n",
        [
            'stack.yaml:5: operators[0].ssh_key: "ssh-ed25519 AAAA" is not an SSH public key: its base64 part is damaged'
        ],
    ),
    "no recipient": (
        STACK + f"operators:\n  - {{name: anna, ssh_key: {SSH_KEY}, age: age1abc}}\n",
        [
            'stack.yaml:5: operators[0].age: "age1abc" is not an age recipient; write "age1..." or an SSH public key of '
            "kind ed25519 or RSA"
        ],
    ),
    "two of one name": (
        STACK
        + f"operators:\n  - {{name: anna, ssh_key: {SSH_KEY}}}\n  - {{name: anna, ssh_key: {SSH_KEY}, age: {AGE_KEY}}}\n",
        ['stack.yaml:6: operators[1].name: "anna" is the name of operators[0] too'],
    ),
    "a variable": (
        STACK + "timezone: ${ZONE}\n",
        ["stack.yaml:4: timezone: the environment variable ZONE is not set"],
    ),
}


@pytest.mark.parametrize("case", BAD_STACK)
def test_bad_stack(root: Path, case: str) -> None:
    text, expected = BAD_STACK[case]
    (root / "stack.yaml").write_text(text)
    assert mistakes(root) == expected


def local(lines: str) -> str:
    return INVENTORY + lines


CARRIER = "carriers: [{name: one, host: smpp.example.net, port: 2775, system_id: us, password: secret, "
BAD_INVENTORY = {
    "nothing": (
        "",
        ["inventories/here.yaml:1: provider: is missing", "inventories/here.yaml:1: machines: is missing"],
    ),
    "an unknown provider": (
        "provider: lokal\nmachines: [{roles: [all]}]\n",
        ['inventories/here.yaml:1: provider: unknown provider "lokal"; known providers: local, ssh'],
    ),
    "a provider's unknown option": (
        local("local:\n  brigde: deploy0\n"),
        ['inventories/here.yaml:5: local.brigde: unknown key; did you mean "bridge"?'],
    ),
    "another provider's section": (
        local("hetzner: {}\n"),
        [
            "inventories/here.yaml:4: hetzner: unknown key; known are: acme, carriers, catch, dns, doctor, local, "
            "machines, mail, provider, repositories, smarthosts, sms"
        ],
    ),
    "a machine's unknown key": (
        "provider: local\nmachines:\n  - roles: [all]\n    rolse: [app]\n",
        ['inventories/here.yaml:4: machines[0].rolse: unknown key; did you mean "roles"?'],
    ),
    "a machine's option at the wrong provider": (
        "provider: local\nmachines:\n  - {roles: [all], adress: 192.0.2.1}\n",
        ["inventories/here.yaml:3: machines[0].adress: unknown key; known are: name, roles"],
    ),
    "no machine": (
        "provider: local\nmachines: []\n",
        ["inventories/here.yaml:2: machines: must not be empty"],
    ),
    "no role": (
        "provider: local\nmachines: [{roles: []}]\n",
        ["inventories/here.yaml:2: machines[0].roles: must not be empty"],
    ),
    "an unknown role": (
        "provider: local\nmachines:\n  - roles: [all]\n  - roles:\n      - databse\n",
        [
            'inventories/here.yaml:5: machines[1].roles[0]: "databse" must be one of all, app, database, mail, sms or base; '
            'did you mean "database"?'
        ],
    ),
    "two of one name": (
        "provider: local\nmachines:\n  - {name: a, roles: [app, mail, sms]}\n  - name: a\n    roles: [database]\n",
        ['inventories/here.yaml:4: machines[1].name: "a" is the name of machines[0] too; names must differ'],
    ),
    "two of one address": (
        "provider: ssh\nmachines:\n  - {address: 192.0.2.1, roles: [app, mail, sms]}\n"
        "  - {roles: [database], address: 192.0.2.1}\n",
        ['inventories/here.yaml:4: machines[1].address: "192.0.2.1" is the address of machines[0] too'],
    ),
    "nobody plays": (
        "provider: local\nmachines:\n  - roles: [app, database]\n",
        [
            'inventories/here.yaml:2: machines: nobody plays the role "mail"; give it to a machine (roles: [mail])',
            'inventories/here.yaml:2: machines: nobody plays the role "sms"; give it to a machine (roles: [sms])',
        ],
    ),
    "two play": (
        "provider: local\nmachines:\n  - roles: [all]\n  - roles: [sms]\n",
        [
            'inventories/here.yaml:4: machines[1].roles: the role "sms" is played by machines[0] already; several '
            "machines for one role are not supported yet"
        ],
    ),
    "a machine's name": (
        "provider: local\nmachines: [{name: a_b, roles: [all]}]\n",
        [
            'inventories/here.yaml:2: machines[0].name: "a_b" is not a name: lower-case letters, digits and hyphens '
            "only, a letter first, no hyphen last"
        ],
    ),
    "a variable": (
        local(CARRIER.replace("secret", '"${CARRIER_PASSWORD}"') + "tls: true}]\n"),
        [
            "inventories/here.yaml:4: carriers[0].password: the environment variable CARRIER_PASSWORD is not set"
        ],
    ),
    "an empty variable": (
        local(CARRIER.replace("secret", '"${EMPTY}"') + "tls: true}]\n"),
        ["inventories/here.yaml:4: carriers[0].password: the environment variable EMPTY is empty"],
    ),
    "no variable": (
        local(CARRIER.replace("secret", '"${a b}"') + "tls: true}]\n"),
        [
            'inventories/here.yaml:4: carriers[0].password: "${a b}" is not the name of an environment variable; '
            'write "$${" where "${" is meant'
        ],
    ),
    "a port": (
        local(CARRIER.replace("2775", "70000") + "}]\n"),
        ['inventories/here.yaml:4: carriers[0].port: "70000" is not a port; ports are 1 to 65535'],
    ),
    "a port in words": (
        local("smarthosts:\n  - name: a\n    host: smtp.example.net\n    port: submission\n"),
        ['inventories/here.yaml:7: smarthosts[0].port: "submission" is not a port; ports are 1 to 65535'],
    ),
    "a carrier's keys": (
        local("carriers:\n  - name: one\n    hots: smpp.example.net\n    port: 2775\n    password: x\n"),
        [
            "inventories/here.yaml:5: carriers[0].host: is missing",
            "inventories/here.yaml:5: carriers[0].system_id: is missing",
            'inventories/here.yaml:6: carriers[0].hots: unknown key; did you mean "host"?',
        ],
    ),
    "a carrier's limits": (
        local(CARRIER.replace("us,", "longer-than-fifteen,") + "tls: perhaps, msg_id_type: 9}]\n"),
        [
            'inventories/here.yaml:4: carriers[0].system_id: "longer-than-fifteen" is not a system id of SMPP: 1 to '
            "15 characters",
            'inventories/here.yaml:4: carriers[0].tls: "perhaps" is neither true nor false',
            'inventories/here.yaml:4: carriers[0].msg_id_type: "9" must be at most 3',
        ],
    ),
    "two carriers of one name": (
        local(CARRIER + "}, {name: one, host: b.example, port: 1, system_id: x, password: y}]\n"),
        ['inventories/here.yaml:4: carriers[1].name: "one" is the name of carriers[0] too'],
    ),
    "a secret is not repeated": (
        local(
            'carriers:\n  - {name: one, host: a.example, port: 1, system_id: x, password: "top\\nsecret"}\n'
        ),
        ["inventories/here.yaml:5: carriers[0].password: holds a line break or another control character"],
    ),
    "a user without password": (
        local("smarthosts: [{name: a, host: smtp.example.net, user: me}]\n"),
        ["inventories/here.yaml:4: smarthosts[0].password: is missing; user and password go together"],
    ),
    "a directory": (
        local("acme:\n  directories:\n    - http://acme.example/directory\n"),
        [
            'inventories/here.yaml:6: acme.directories[0]: "http://acme.example/directory" is not an address that '
            'begins with "https://"'
        ],
    ),
    "a CA that is not there": (
        local("acme: {trusted_ca: ca.pem}\n"),
        [
            'inventories/here.yaml:4: acme.trusted_ca: "ca.pem" is not a file with a PEM certificate (seen from the '
            "project's folder)"
        ],
    ),
    "catch": (
        local("catch: sometimes\n"),
        ['inventories/here.yaml:4: catch: "sometimes" is neither true nor false'],
    ),
}


@pytest.mark.parametrize("case", BAD_INVENTORY)
def test_bad_inventory(root: Path, case: str) -> None:
    text, expected = BAD_INVENTORY[case]
    (root / "inventories" / "here.yaml").write_text(text)
    assert mistakes(root, EMPTY="") == expected


BAD_DOMAINS = {
    "example": 'at least two parts are needed ("example.org")',
    "ex_ample.org": '"ex_ample" may hold letters, digits and inner hyphens only',
    "-a.example": '"-a" may hold letters, digits and inner hyphens only',
    "a..example": "two dots in a row, or one in front",
    "example.org.": "leave out the last dot",
    "bücher.example": "letters outside ASCII need their IDNA form; write it as xn--bcher-kva.example",
    "xn--0.example": '"xn--0" is not valid IDNA',
    "ab--c.example": '"ab--c" has hyphens in third and fourth place (RFC 5891)',
    f"{'a' * 64}.example": f'"{"a" * 64}" is longer than 63 characters',
    "192.0.2.1": "",
    "https://demo.example": "",
}


@pytest.mark.parametrize("domain", BAD_DOMAINS)
def test_bad_domain(root: Path, domain: str) -> None:
    (root / "stack.yaml").write_text(STACK.replace("demo.test", domain))
    (line,) = mistakes(root)
    assert line.startswith(f'stack.yaml:2: domain: "{domain}" is not a domain')
    assert line.endswith(BAD_DOMAINS[domain])


BAD_MANIFEST = {
    "an unknown key": (
        "probse: []\n",
        'templates/apps/chat/app.yaml:12: probse: unknown key; did you mean "probes"?',
    ),
    "a fixed port": (
        ("8008", "5432"),
        "templates/apps/chat/app.yaml:5: processes[0].port: port 5432 clashes with PostgreSQL",
    ),
    "an unknown runtime": (
        ("runtime: server", "runtime: servr"),
        'templates/apps/chat/app.yaml:5: processes[0].runtime: "servr" is no runtime; did you mean "server"?',
    ),
    "an unknown process": (
        ("process: server", "process: web"),
        'templates/apps/chat/app.yaml:7: routes[0].process: "web" is no process; known are: server',
    ),
    "a host of many names that nobody is asked about": (
        ('host: "{domain}"', 'host: "*.{domain}"'),
        'templates/apps/chat/app.yaml:7: routes[0]: needs `ask`, the same on all: who says which names under "*." there are',
    ),
    "a question about one name": (
        ("process: server}", "process: server, ask: /known}"),
        'templates/apps/chat/app.yaml:7: routes[0].ask: is for a host that stands for many names, "*.NAME"',
    ),
    "a missing template": (
        ("config.j2", "conf.j2"),
        'templates/apps/chat/app.yaml:6: files[0].template: there is no file "conf.j2" beside app.yaml',
    ),
    "a kind": (
        ("kind: python", "kind: ruby"),
        'templates/apps/chat/app.yaml:3: runtimes[0].kind: "ruby" must be one of python, node, container',
    ),
    "a lock that names no image": (
        ("kind: python", "kind: container"),
        'templates/apps/chat/app.yaml:3: runtimes[0].lock: "" in server.lock is no HOST/NAME@sha256:DIGEST; '
        "a tag may be another image tomorrow",
    ),
    "no lock": (
        (", lock: server.lock", ""),
        'templates/apps/chat/app.yaml:3: runtimes[0].lock: there is no file "" beside app.yaml',
    ),
    "a registry of packages": (
        ("lock: server.lock", "lock: server.lock, ca: x.crt"),
        "templates/apps/chat/app.yaml:3: runtimes[0].ca: is for a container",
    ),
    "a database": (
        ("[chat]", "[postgres]"),
        'templates/apps/chat/app.yaml:9: databases[0]: "postgres" cannot be the name of an app\'s database',
    ),
    "a type": (
        ("8008", "web"),
        'templates/apps/chat/app.yaml:5: processes[0].port: "web" is not a whole number',
    ),
}


@pytest.mark.parametrize("case", BAD_MANIFEST)
def test_bad_manifest(root: Path, case: str) -> None:
    change, expected = BAD_MANIFEST[case]
    text = MANIFEST + change if isinstance(change, str) else MANIFEST.replace(*change)
    (root / "templates" / "apps" / "chat" / "app.yaml").write_text(text)
    assert mistakes(root) == [expected]


def test_two_processes_of_one_port(root: Path) -> None:
    second = "  - {name: worker, runtime: server, command: x, port: 8008}\nfiles:"
    path = root / "templates" / "apps" / "chat" / "app.yaml"
    path.write_text(MANIFEST.replace("files:", second, 1))
    assert mistakes(root) == [
        'templates/apps/chat/app.yaml:6: processes[1].port: port 8008 clashes with the process "server"'
    ]


def test_several_mistakes_are_shown_at_once(root: Path) -> None:
    (root / "stack.yaml").write_text(STACK.replace("demo.test", "demo") + "foo: 1\n")
    (root / "inventories" / "here.yaml").write_text(local("bar: 1\ncatch: 2\n"))
    with pytest.raises(InputError) as caught:
        loaded(root)
    lines = str(caught.value).splitlines()
    assert lines[0] == "checking the project's files: 4 mistakes"
    assert [line.split(": ")[0] for line in lines[1:-1]] == [
        "  stack.yaml:2",
        "  stack.yaml:4",
        "  inventories/here.yaml:4",
        "  inventories/here.yaml:5",
    ]
    assert lines[-1] == "next: correct the file and run it again; nothing was touched"


def test_which_inventory(root: Path, tmp_path: Path) -> None:
    assert find_inventory(root, None) == root / "inventories" / "here.yaml"
    with pytest.raises(InputError) as unknown:
        find_inventory(root, "hier")
    assert unknown.value.why == 'unknown provider "hier"; did you mean "here"?'
    assert {"baremetal", "here", "local"} <= set(re.findall(r"[a-z-]+", unknown.value.next))
    (root / "inventories" / "there.yaml").write_text(INVENTORY)
    with pytest.raises(InputError, match="several"):
        find_inventory(root, None)


def test_an_inventory_file_that_is_missing(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(root, None, root / "no.yaml")
    assert caught.value.detail == "no.yaml: cannot be read: No such file or directory"


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no stack\.yaml") as caught:
        load(tmp_path, "local", None)
    assert "deploy init" in caught.value.next
    with pytest.raises(InputError):
        load_stack(tmp_path)


def test_the_stack_alone(root: Path) -> None:
    (root / "inventories" / "here.yaml").write_text("provider: [\n")
    assert load_stack(root).name == "demo"


def test_a_look_needs_no_vendors_password(root: Path) -> None:
    (root / "inventories" / "here.yaml").write_text(local(CARRIER.replace("secret", '"${UNSET}"') + "}]\n"))
    project = load(root, "here", None, environment={}, expand=False)
    assert project.inventory.carriers[0].password == "${UNSET}"


def test_another_app_on_the_command_line(root: Path) -> None:
    assert load(root, "here", None, "matrix").stack.app == "matrix"
    with pytest.raises(InputError) as caught:
        load(root, "here", None, "diaspora")
    assert (
        caught.value.detail
        == '--app: app: unknown app "diaspora"; known are: bluesky, chat, mastodon, matrix, misago'
    )
