"""The rig's object storage behaves as a vendor does, and as badly as we ask."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.rig.objects import CHECKOUT, Objects


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Objects]:
    with Objects(tmp_path / "east", "localhost") as made:
        yield made


def client(vendor: Objects, secret: str = "") -> Any:
    ca = vendor.folder / "ca.crt"
    ca.write_text(vendor.ca)
    return boto3.client(
        "s3",
        endpoint_url=vendor.endpoint,
        region_name="us-east-1",
        aws_access_key_id=vendor.key,
        aws_secret_access_key=secret or vendor.secret,
        verify=str(ca),
        config=Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            connect_timeout=2,
            read_timeout=2,
            retries={"max_attempts": 0},
        ),
    )


def test_objects_are_files_and_a_wrong_key_is_refused(vendor: Objects) -> None:
    s3 = client(vendor)
    s3.put_object(Bucket=vendor.bucket, Key="a/b", Body=b"hello")
    assert vendor.keys() == ["a/b"] and vendor.path("a/b").read_bytes() == b"hello"
    vendor.put("a/c", b"world")
    vendor.settle()
    assert s3.get_object(Bucket=vendor.bucket, Key="a/c")["Body"].read() == b"world"
    assert len(s3.list_objects_v2(Bucket=vendor.bucket, Prefix="a/")["Contents"]) == 2
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|403"):
        client(vendor, "not the secret").get_object(Bucket=vendor.bucket, Key="a/b")


def test_damage_is_seen_at_once(vendor: Objects) -> None:
    s3 = client(vendor)
    for key in ("x/one", "x/two", "x/three", "y/four"):
        s3.put_object(Bucket=vendor.bucket, Key=key, Body=b"0123456789")
        s3.get_object(Bucket=vendor.bucket, Key=key)
    assert vendor.damage("x/on*", "delete") == ["x/one"]
    vendor.damage("x/two", "truncate")
    vendor.damage("x/three", "flip")
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=vendor.bucket, Key="x/one")
    assert s3.get_object(Bucket=vendor.bucket, Key="x/two")["Body"].read() == b"01234"
    assert s3.get_object(Bucket=vendor.bucket, Key="x/three")["Body"].read() == b"0123446789"
    assert s3.get_object(Bucket=vendor.bucket, Key="y/four")["Body"].read() == b"0123456789"


def test_off_paused_slow_and_back(vendor: Objects) -> None:
    s3 = client(vendor)
    s3.put_object(Bucket=vendor.bucket, Key="a", Body=b"1")
    vendor.stop()
    with pytest.raises(BotoCoreError):
        s3.head_object(Bucket=vendor.bucket, Key="a")
    vendor.start()
    vendor.pause()
    with pytest.raises(BotoCoreError):
        s3.head_object(Bucket=vendor.bucket, Key="a")
    vendor.resume()
    client(vendor).head_object(Bucket=vendor.bucket, Key="a")
    vendor.slow(600)
    began = time.monotonic()
    client(vendor).head_object(Bucket=vendor.bucket, Key="a")
    assert time.monotonic() - began > 0.6
    vendor.slow(0)
    client(vendor).head_object(Bucket=vendor.bucket, Key="a")


def test_it_ends_with_the_test_that_was_killed(tmp_path: Path) -> None:
    """By SIGKILL, in the worst state: paused."""
    text = (
        "import os, pathlib, signal, sys; from tests.rig.objects import Objects\n"
        "o = Objects(pathlib.Path(sys.argv[1])); o.start(); o.pause(); print(o._processes[0]._pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path / "v")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    pid = int(run.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
