"""Plans and reports, for programs and for people. It must not look at the host."""
