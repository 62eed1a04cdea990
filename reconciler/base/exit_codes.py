"""Exit codes; the numbers from 64 up are those of sysexits.h. It must not hold anything else."""

from __future__ import annotations

DONE, TROUBLE, CHANGED, USAGE, INVALID, BUSY = 0, 1, 2, 64, 65, 75
