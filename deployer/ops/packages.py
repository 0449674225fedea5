"""Debian packages, all of a machine in one transaction."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra.api import StringCommand, operation

from deployer.ops.script import script

# Seconds to wait for another apt (an unattended upgrade, or ours that outlived a killed run).
LOCK = 300


@operation()
def installed(names: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Install `names` without starting their services: policy-rc.d refuses while DEPLOY_INSTALLING is set.

    Finishes an interrupted dpkg first. The lists are fetched when they are older than a day, and once more
    when an installation fails, since mirrors drop old versions.
    """
    wanted = " ".join(shlex.quote(name) for name in names)
    yield script(f"""
# needrestart would look for services to restart after each package; the phases after this one restart ours.
export DEBIAN_FRONTEND=noninteractive DEPLOY_INSTALLING=1 NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
get() {{ apt-get -q -y -o DPkg::Lock::Timeout={LOCK} -o Dpkg::Use-Pty=0 "$@"; }}
update() {{ get -o APT::Update::Error-Mode=any update; }}
install() {{ get --no-install-recommends -o Dpkg::Options::=--force-confold install {wanted}; }}
dpkg --configure -a --force-confold
if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -1440 -print -quit)" ]; then update; fi
install || {{ update; install; }}
""")
