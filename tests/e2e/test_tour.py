"""The script that the README shows to a newcomer."""

from __future__ import annotations

import os
import subprocess

from tests.e2e.conftest import Deployed
from tests.e2e.operator import CHECKOUT


def test_the_tour_signs_up_and_talks(demo: Deployed) -> None:
    done = subprocess.run(
        [str(CHECKOUT / "docs" / "tour.sh"), demo.operator.inventory],
        env={**os.environ, "HOME": str(demo.operator.home), "PROJECT": str(demo.folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    (signed_up,) = (line for line in lines if line.startswith("signed up as @"))
    assert signed_up.endswith(f":{demo.domain}")
    assert lines[-1].endswith(" said: hello")
