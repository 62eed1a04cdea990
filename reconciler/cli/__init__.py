"""The command line: options, the context of one call, and a module for each mode."""
