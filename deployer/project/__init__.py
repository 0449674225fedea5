"""The project's files: their schemas, and the secrets bundle. Gives the dataclasses of core/model.py."""

from deployer.project.loading import find_inventory, load, load_stack

__all__ = ["find_inventory", "load", "load_stack"]
