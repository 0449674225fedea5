"""Both kinds of store behave alike, and every failure names the repository and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployer import storage
from deployer.core.errors import CredentialError, DeployError, InputError
from deployer.core.model import Repository
from tests.rig.objects import Objects


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    with Objects(tmp_path_factory.mktemp("east"), name="east") as made:
        yield made


@pytest.fixture(params=["s3", "path"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    if request.param == "path":
        return Repository("disk", "path", path=str(tmp_path))
    made: Objects = request.getfixturevalue("vendor")
    return made.repository(prefix=f"team/{tmp_path.name}")


def test_what_is_put_comes_back(repository: Repository) -> None:
    store = storage.open_store(repository)
    assert store.list() == {}
    store.put("demo/generations/000001.json", b"{}")
    store.put("demo/000001/catalogue/a/b", bytes(range(256)) * 1000)
    store.put("demo/other", b"")
    assert store.get("demo/000001/catalogue/a/b") == bytes(range(256)) * 1000
    assert store.list("demo/gen") == {"demo/generations/000001.json": 2}
    assert store.list() == {
        "demo/000001/catalogue/a/b": 256000,
        "demo/generations/000001.json": 2,
        "demo/other": 0,
    }
    assert store.folders() == ["demo"]
    assert store.folders("demo/") == ["000001", "generations"]
    assert store.folders("absent/") == []
    store.put("demo/other", b"new")
    assert store.get("demo/other") == b"new"
    store.delete("demo/other")
    store.delete("demo/other")
    with pytest.raises(storage.MissingError) as caught:
        store.get("demo/other")
    assert store.name in caught.value.what and caught.value.next


def test_only_new_leaves_what_is_there(repository: Repository) -> None:
    store = storage.open_store(repository)
    store.put("claim", b"first", only_new=True)
    with pytest.raises(storage.ExistsError):
        store.put("claim", b"second", only_new=True)
    assert store.get("claim") == b"first"


def test_more_keys_than_one_answer_holds(vendor: Objects) -> None:
    store = storage.open_store(vendor.repository(prefix="many"))
    for number in range(1100):
        vendor.put(f"many/k/{number:04d}", b"x")
    vendor.settle()
    assert len(store.list("k/")) == 1100


def test_a_prefix_is_no_wall_between_words(repository: Repository) -> None:
    """demo and demo2 are two stacks."""
    store = storage.open_store(repository)
    store.put("demo2/generations/000001.json", b"")
    assert store.list("demo/") == {}


def test_wrong_secret_no_bucket_switched_off_silent_and_foreign(tmp_path: Path) -> None:
    with Objects(tmp_path / "west", name="west") as vendor:
        good = vendor.repository()
        storage.open_store(good).put("a", b"1")
        with pytest.raises(CredentialError, match="refuses the key") as caught:
            storage.open_store(replace(good, secret="wrong-secret-key")).get("a")
        assert "west" in caught.value.what and caught.value.next
        with pytest.raises(DeployError, match="no bucket other"):
            storage.open_store(replace(good, bucket="other")).list()
        with pytest.raises(storage.OfflineError, match="certificate"):
            storage.open_store(replace(good, trusted_ca="")).list()
        vendor.stop()
        with pytest.raises(storage.OfflineError, match="does not answer"):
            storage.open_store(good).get("a")
        vendor.start()
        storage.open_store(good).get("a")


def test_a_silent_vendor_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deployer.storage import s3

    monkeypatch.setattr(s3, "READ_TIMEOUT", 1)
    with Objects(tmp_path / "west", name="west") as vendor:
        vendor.pause()
        began = time.monotonic()
        with pytest.raises(storage.OfflineError):
            storage.open_store(vendor.repository()).list()
        assert time.monotonic() - began < 20


def test_deleting_has_keys_of_its_own(vendor: Objects) -> None:
    with pytest.raises(InputError, match="prune_key"):
        storage.open_store(vendor.repository(), prune=True)
    wrong = vendor.repository(prune_key=vendor.key, prune_secret="not the secret")
    storage.open_store(wrong).put("x", b"")
    with pytest.raises(CredentialError):
        storage.open_store(wrong, prune=True).delete("x")


def test_a_share_that_is_not_mounted_is_no_empty_repository(tmp_path: Path) -> None:
    store = storage.open_store(Repository("disk", "path", path=str(tmp_path / "absent")))
    for call in (store.list, lambda: store.put("a", b""), lambda: store.get("a")):
        with pytest.raises(storage.OfflineError, match="no folder"):
            call()
    assert not (tmp_path / "absent").exists()


def test_a_key_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    store = storage.open_store(Repository("disk", "path", path=str(tmp_path / "in")))
    for key in ("../out", "/etc/out"):
        with pytest.raises(DeployError, match="out of the repository"):
            store.put(key, b"")


def test_addresses(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    found = storage.parse(
        f"s3://KEY%2F1@s3.east.test:9000/bucket/a/b/?ca={tmp_path}/ca.crt&region=eu-1", "hidden"
    )
    assert (found.endpoint, found.bucket, found.prefix) == ("https://s3.east.test:9000", "bucket", "a/b")
    assert (found.key, found.secret, found.region) == ("KEY/1", "hidden", "eu-1")
    assert found.trusted_ca.startswith("-----BEGIN")
    assert storage.parse("s3://KEY@s3.east.test/bucket").prefix == ""
    assert storage.parse("file:///mnt/share").path == "/mnt/share"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://host/bucket", "neither"),
        ("s3://host/bucket", "missing"),
        ("s3://KEY@host", "missing"),
        ("s3://KEY@host:port/bucket", "[Pp]ort"),
        ("s3://KEY:hidden@host/bucket", "secret key"),
        ("s3://KEY@host/bucket?regoin=x", "regoin"),
        ("s3://KEY@host/bucket?ca=/no/such/file", "No such file"),
        ("file://relative/path", "absolute"),
    ],
)
def test_wrong_addresses_say_how_it_is_written(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        storage.parse(url)
    assert "s3://KEY@host" in caught.value.next
    assert "hidden" not in str(caught.value)
