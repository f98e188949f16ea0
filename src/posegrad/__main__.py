"""`python -m posegrad` is the command `posegrad`."""

import sys

from posegrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
