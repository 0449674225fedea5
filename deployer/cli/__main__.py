"""`python -m deployer.cli`, which bin/deploy runs."""

from __future__ import annotations

from deployer.cli.main import main

main()
