"""Keys, passwords and our own certificate authority. Only text.py is read by an unchanged run."""

from deployer.pki.text import public_ssh, split_pem

__all__ = ["public_ssh", "split_pem"]
