"""`python -m infobehavior` is the command `infobehavior`."""

import sys

from infobehavior.cli import main

if __name__ == "__main__":
    sys.exit(main())
