"""deploy: bring up a whole social network on any vendor's machines, or on your own."""

__version__ = "0.1.0"
