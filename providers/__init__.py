"""Providers of machines: one module or package a vendor; see deployer/core/provider.py."""

# Modules here that several of them use, and that are no provider.
SHARED = ("cloudinit",)
