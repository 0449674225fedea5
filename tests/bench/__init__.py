"""Measure what the operator feels. `bin/bench` runs all of it, `bin/bench NAME` one part. Never part of a timed test.

Figures of one run belong together: the computer, its load and its caches are the same for all of them. Quote
ratios from one run, and medians.
"""
