"""Prints where the collection is: ansible-galaxy collection install "$(python -m …)"."""

from reconciler.fleet import COLLECTIONS

print(f"{COLLECTIONS}/ansible_collections/reconcile/host")
