#!/usr/bin/python3 -B
"""`queues.py status|release`: mail and SMS that a restore brought back and that wait for an operator's word. JSON.

Not called queue.py: it would take the place of Python's own module for every program beside it.
"""

from __future__ import annotations

import argparse
import json
import sys

import holding
from ground import Failure


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("verb", choices=("status", "release"))
    for kind in ("mail", "sms"):
        parser.add_argument(f"--{kind}", action="store_true", help="of these alone; without any, of all")
    options = parser.parse_args()
    kinds = [kind for kind in ("mail", "sms") if getattr(options, kind)] or ["mail", "sms"]
    try:
        print(json.dumps(holding.status() if options.verb == "status" else holding.release(kinds), indent=1))
        return 0
    except Failure as failure:
        print(json.dumps({"error": failure.body}))
        return 1


if __name__ == "__main__":
    sys.exit(main())
