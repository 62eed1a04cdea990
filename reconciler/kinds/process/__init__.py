"""Processes: daemons, and what runs in a tmux session."""
