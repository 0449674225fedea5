"""A vendor whose machines are records, and `deploy up` that is killed there while it makes machines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deployer.core.machine import Deployment
from deployer.core.provider import Listing
from deployer.flow import registry
from tests.rig.aws.fake import CREDENTIALS, REGION, FakeAws
from tests.rig.hetzner import FakeHetzner

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOYMENT = Deployment("killed", "cloud")

Fake = FakeHetzner | FakeAws


class Bench:
    """One vendor whose machines are records, and a project that wants two machines there."""

    def __init__(self, vendor: str, folder: Path) -> None:
        self.vendor, self.folder = vendor, folder
        self.fake: Fake
        self.environment: dict[str, str] = {}
        self._number = 0
        self._providers: dict[str, Any] = {}

    def fresh(self) -> Path:
        """A vendor and a project folder in which nothing was made yet."""
        if isinstance(getattr(self, "fake", None), FakeAws):
            # moto is slow to start, and as good when it has forgotten everything.
            self.fake.reset()
        else:
            self.close()
            self.fake = FakeHetzner().start() if self.vendor == "hetzner" else FakeAws()
        if isinstance(self.fake, FakeHetzner):
            self.environment = {"HCLOUD_TOKEN": self.fake.token}
            section = f"{{location: fsn1, endpoint: {self.fake.endpoint}}}"
        else:
            self.environment = CREDENTIALS
            section = f"{{region: {REGION}, endpoint: {self.fake.endpoint}}}"
        self._number += 1
        project = self.folder / str(self._number)
        (project / "inventories").mkdir(parents=True)
        (project / "stack.yaml").write_text(
            "name: killed\ndomain: killed.test\napp: matrix\n", encoding="utf-8"
        )
        text = f"provider: {self.vendor}\nmachines:\n- roles: [app, mail, sms]\n- roles: [database]\n"
        text += f"{self.vendor}: {section}\nacme: {{directories: []}}\n"
        (project / "inventories" / "cloud.yaml").write_text(text, encoding="utf-8")
        return project

    def run(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=CHECKOUT,
            env={**os.environ, "HOME": str(self.folder), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def start(self, project: Path, at_once: int = 1) -> subprocess.Popen[bytes]:
        return self.run("tests.providers.bring", str(project), "cloud", str(at_once))

    def good(self, project: Path, at_once: int = 1) -> None:
        done = self.start(project, at_once)
        out, _ = done.communicate(timeout=120)
        assert done.returncode == 0, out.decode()[-3000:]

    def killed(self, project: Path, at: int, when: str, at_once: int = 1) -> bool:
        """Run it and kill it at a call. False when it ended well before."""
        done: subprocess.Popen[bytes] | None = None

        def kill() -> None:
            if done:
                os.kill(done.pid, signal.SIGKILL)
                done.wait(10)

        self.fake.faults.kill(at, when, kill)
        done = self.start(project, at_once)
        out, _ = done.communicate(timeout=120)
        self.fake.faults.clear()
        if done.returncode == -signal.SIGKILL:
            return True
        assert done.returncode == 0, out.decode()[-3000:]
        return False

    def state(self) -> Counter[tuple[str, str]]:
        """How many there are of each kind and name with our label."""
        if isinstance(self.fake, FakeHetzner):
            self.fake.settle()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            provider = self._providers.get(self.fake.endpoint)
            if provider is None:
                module = registry.provider_module(self.vendor)
                provider = module.make({"endpoint": self.fake.endpoint}, DEPLOYMENT)
                self._providers[self.fake.endpoint] = provider
            assert isinstance(provider, Listing)
            # An SSH key's name ends in its digest, and each project has its own; an address' in what the vendor gave.
            ends = r"-[0-9a-f]{8}$| \d+\.\d+\.\d+\.\d+$"
            return Counter((one.kind, re.sub(ends, "", one.name)) for one in provider.resources())

    def close(self) -> None:
        if hasattr(self, "fake"):
            self.fake.stop() if isinstance(self.fake, FakeHetzner) else self.fake.close()
