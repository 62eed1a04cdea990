"""Lines in crontabs."""
