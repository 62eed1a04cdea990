"""``--plan --at`` and ``--plan --if``: what would be done at another time, or after an event.

The code that acts is called on another clock, on a copy of the store in memory, and for an event
with kinds that look at no host and change none. It must not write anything.
"""
