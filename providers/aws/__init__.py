"""Provider `aws`: Amazon EC2, each deployment in a network (VPC) of its own. Permissions: docs/aws-iam.md."""

from __future__ import annotations

from providers.aws.provider import AwsProvider, make
from providers.aws.settings import MACHINE_OPTIONS, OPTIONS

__all__ = ["MACHINE_OPTIONS", "OPTIONS", "AwsProvider", "make"]
