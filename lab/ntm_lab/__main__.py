"""`python -m ntm_lab`, the twin of the command `ntm`."""

import sys

from ntm_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
