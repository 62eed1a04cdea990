"""A YAML file to a valid, typed, ordered Spec.

It must not touch the host beyond reading the files named, the environment it is handed and the
compiled spec. It stays light: what compiles is imported only when something has changed.
"""

from reconciler.config.cache import load as load
