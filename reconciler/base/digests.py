"""The digest that is used throughout: `hashlib.blake2b`, without loading OpenSSL for it.

It must not be another one. OpenSSL, of which `hashlib` has no need for it, takes as long to load
as a fifth of the interpreter.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # Not every Python has it under that name.
    from hashlib import blake2b

__all__ = ["blake2b"]
