"""A vendor's cloud on this computer: the Hetzner Cloud API, stateful, checked against its published description."""

from __future__ import annotations

from tests.rig.hetzner.fake import FakeHetzner

__all__ = ["FakeHetzner"]
