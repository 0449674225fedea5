"""What every check that asks something needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.core.model import DoctorPolicy, Inventory, Project
from deployer.flow.doctor.mail import Route
from deployer.flow.doctor.runner import Runner
from deployer.flow.session import Session


@dataclass(frozen=True)
class Scene:
    session: Session
    runner: Runner

    @property
    def project(self) -> Project:
        return self.session.project

    @property
    def inventory(self) -> Inventory:
        return self.session.project.inventory

    @property
    def policy(self) -> DoctorPolicy:
        return self.inventory.doctor

    @property
    def route(self) -> Route:
        return Route(tuple(one.name for one in self.inventory.smarthosts))

    @property
    def public(self) -> bool:
        """The world is meant to reach it by name."""
        return not self.inventory.catch or bool(self.inventory.dns or self.inventory.acme.directories)
