"""What a kill leaves at a vendor: `deploy orphans` shows it with age and price, and a run again or `down` leaves none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.providers.killing import DEPLOYMENT, Bench
from tests.rig.hetzner.faults import AFTER

# The call after which a machine's address is there and costs money, and no machine yet.
ADDRESS = {"hetzner": ("POST", "/primary_ips"), "aws": ("POST", "AllocateAddress")}


@pytest.fixture(params=["hetzner", pytest.param("aws", marks=pytest.mark.long)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    made.close()


def deploy(bench: Bench, project: Path, *words: str) -> dict[str, Any]:
    """Run a verb; its result."""
    done = bench.run("deployer.cli", *words, "--project", str(project), "--provider", "cloud", "--json")
    out, _ = done.communicate(timeout=120)
    assert done.returncode == 0, out.decode()[-3000:]
    (result,) = [
        line["data"]
        for text in out.decode().splitlines()
        if (line := json.loads(text)).get("kind") == "result" or line.get("type") == "result"
    ]
    assert isinstance(result, dict)
    return result


def orphans(bench: Bench, project: Path) -> list[dict[str, Any]]:
    return list(deploy(bench, project, "orphans")["orphans"])


def killed_after_the_first_address(bench: Bench) -> Path:
    """The project of a run that was killed there."""
    project = bench.fresh()
    bench.fake.calls.clear()
    bench.good(project)
    first = bench.fake.calls.matching(*ADDRESS[bench.vendor])[0]
    project = bench.fresh()
    bench.fake.calls.clear()
    assert bench.killed(project, first.index, AFTER)
    return project


def test_a_kill_leaves_what_orphans_shows_and_down_deletes(bench: Bench) -> None:
    project = killed_after_the_first_address(bench)
    left = orphans(bench, project)
    (address,) = [one for one in left if one["price"]]
    assert "address" in address["kind"]
    assert address["currency"]
    assert 0 <= address["age"] < 120
    assert {one["deployment"] for one in left} == {str(DEPLOYMENT)}
    assert {one["why"] for one in left} == {"its deployment has no machines"}

    deploy(bench, project, "down", "--yes")
    assert orphans(bench, project) == []
    assert not bench.state()


def test_after_a_kill_a_run_again_leaves_no_orphan_and_down_only_data(bench: Bench) -> None:
    project = killed_after_the_first_address(bench)
    bench.good(project)
    assert orphans(bench, project) == []

    told = deploy(bench, project, "down", "--yes")
    kept = orphans(bench, project)
    assert sorted(one["name"] for one in kept) == sorted(one["name"] for one in told["kept"]) != []
    for one in kept:
        assert (one["kind"], one["data"], one["why"]) == ("volume", True, "data that a down has kept")
        assert one["price"] > 0
        assert 0 <= one["age"] < 120

    deploy(bench, project, "down", "--yes", "--destroy-data", DEPLOYMENT.stack)
    assert orphans(bench, project) == []
    assert not bench.state()
