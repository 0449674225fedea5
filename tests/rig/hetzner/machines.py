"""Servers that are real machines of the rig."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.rig.cloudimage import CloudImage, Guest
from tests.rig.hetzner.hardware import Wanted


class RealMachines:
    """`options`: those of the provider local; layers: tests.rig.cloudimage.build, and what lies above it; volumes: where
    their data lie."""

    def __init__(self, options: Mapping[str, object], layers: Path | Sequence[Path], volumes: Path) -> None:
        self.image = CloudImage(options, [layers] if isinstance(layers, Path) else layers)
        self._volumes = volumes

    def addresses(self) -> Iterable[str]:
        return self.image.addresses()

    def network6(self, number: int) -> str:
        return self.image.network6(number)

    def create(self, wanted: Wanted) -> None:
        self.image.create(
            Guest(
                id=f"hcloud-{wanted.id}",
                name=wanted.name,
                address=wanted.address,
                address6=wanted.address6,
                private=wanted.private,
                user_data=wanted.user_data,
                volumes=tuple(self._folder(number) for number in wanted.volumes),
            )
        )

    def start(self, name: str) -> None:
        self.image.start(name)

    def stop(self, name: str) -> None:
        self.image.stop(name)

    def delete(self, name: str) -> None:
        self.image.delete(name)

    def delete_volume(self, number: int) -> None:
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def close(self) -> None:
        self.image.close()

    def _folder(self, number: int) -> Path:
        return self._volumes / str(number)
