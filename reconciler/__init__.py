"""A declarative state-reconciler for a Linux host."""

__version__ = "0.1.0"
