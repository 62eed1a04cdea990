"""Errors, values and words that every room shares. It must not import another room."""
