"""What the modes of the command line do, one module each: ``run(session) -> exit status``.

They must not do the work themselves: they ask a session for it, and tell people and programs.
"""
