"""A status page for browsers: read-only, live, and looked at once for all who read it."""
