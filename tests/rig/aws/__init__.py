"""Amazon as moto plays it (EC2, Route 53, STS), with what moto leaves out, on loopback.

Its instances are records only, or real machines: see `hardware` of tests/rig/hetzner. FakeAws in fake.py is the way in.
"""
