"""Sessions of tmux."""
