"""Provider `hetzner`: servers of the Hetzner Cloud, with a volume, a private network and a firewall of its own."""

from __future__ import annotations

from providers.hetzner.provider import HetznerProvider, make
from providers.hetzner.settings import MACHINE_OPTIONS, OPTIONS

__all__ = ["MACHINE_OPTIONS", "OPTIONS", "HetznerProvider", "make"]
