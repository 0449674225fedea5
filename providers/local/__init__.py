"""Provider `local`: real Debian 13 machines on the operator's own computer, by systemd-nspawn."""

from __future__ import annotations

from providers.local.provider import LocalProvider, make
from providers.local.settings import MACHINE_OPTIONS, OPTIONS

__all__ = ["MACHINE_OPTIONS", "OPTIONS", "LocalProvider", "make"]
