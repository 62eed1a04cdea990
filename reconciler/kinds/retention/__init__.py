"""How long files are kept: deletion, moves, archives and rotation."""
