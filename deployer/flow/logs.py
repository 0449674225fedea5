"""`deploy logs`."""

from deployer.flow.execute import logs

__all__ = ["logs"]
