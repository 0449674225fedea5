"""`deploy ssh`."""

from deployer.flow.execute import ssh_command

__all__ = ["ssh_command"]
