"""`python -m reconciler.executor`: the same as the command `ai-cmd-executor`, nothing more."""

import sys

from reconciler.executor.cli import main

if __name__ == "__main__":
    sys.exit(main())
