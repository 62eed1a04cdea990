"""The same on many hosts: the Ansible collection that comes with the program, and what runs it.

It must not do anything of SSH, inventories, parallelism or secrets by itself: that is Ansible's.
"""

from __future__ import annotations

import os

COLLECTIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "collection")
"""The folder with ``ansible_collections``, as in ANSIBLE_COLLECTIONS_PATH."""
