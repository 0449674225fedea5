"""The policy in docs/aws-iam.md is what provider aws needs, and no more."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from deployer.core.machine import Opening
from tests.providers.aws import (
    DEPLOYMENT,
    fake,
    make,
    server,
    spec,
)
from tests.rig.aws.fake import FakeAws

# Fixtures are found by their names here.
__all__ = ["fake", "server"]

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_policy_allows_every_call_that_was_made(fake: FakeAws) -> None:
    """All that a deployment ever does, against the JSON in docs/aws-iam.md."""
    fake.actions.clear()
    provider = make(fake, protect=True)
    wanted = spec(volume=5)
    provider.check()
    provider.offers()
    made = provider.create_machine(DEPLOYMENT, wanted)
    provider._account.call("x", "stop_instances", InstanceIds=[made.id])
    provider.create_machine(DEPLOYMENT, wanted)
    provider.set_reverse_dns(made, "mail.social.test")
    client = provider._account.client("ec2")
    client.modify_instance_metadata_options(InstanceId=made.id, HttpTokens="optional")
    changed = replace(wanted, openings=(Opening(22),), volume=wanted.volume + 1)
    assert provider.reverse_dns(made)
    assert provider.drift(made, changed)
    provider.mend(made, changed)
    provider.delete_machine(made)
    again = provider.create_machine(DEPLOYMENT, wanted)
    for resource in provider.resources():
        provider.delete_resource(resource)
    provider.delete_machine(again)
    # StopInstances is the operator's, here the test's.
    called = fake.actions - {"ec2:StopInstances"}
    assert len(called) > 35
    assert called <= allowed(), sorted(called - allowed())


def allowed() -> set[str]:
    """The actions of the documented policy."""
    text = (ROOT / "docs" / "aws-iam.md").read_text(encoding="utf-8")
    found: set[str] = set()
    for block in re.findall(r"```json\n(.*?)```", text, re.S):
        for statement in json.loads(block)["Statement"]:
            actions = statement["Action"]
            found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def test_the_documented_policy_is_what_the_code_can_call_and_no_more() -> None:
    import boto3

    # Whatever is one of boto3's methods and stands in the code as a text.
    words = {
        word
        for path in (ROOT / "providers" / "aws").glob("*.py")
        for word in re.findall(r'"([a-z]+(?:_[a-z]+)+)"', path.read_text(encoding="utf-8"))
    }
    can_call = set()
    for service, prefix in {
        "ec2": "ec2",
        "sts": "sts",
        "ssm": "ssm",
        "pricing": "pricing",
        "service-quotas": "servicequotas",
    }.items():
        client = boto3.client(
            service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        methods = client.meta.method_to_api_mapping
        can_call |= {f"{prefix}:{methods[word]}" for word in words if word in methods}
    assert can_call == allowed()
