"""`python -m accelkd.cli` is the command `accelkd`."""

import sys

from accelkd.cli import main

if __name__ == "__main__":  # not in the worker processes that import it
    sys.exit(main())
