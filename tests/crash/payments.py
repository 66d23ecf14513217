"""python -m tests.crash.payments --kills 2000 --seed 1: see payment_storm.py."""

import sys

from tests.crash.payment_storm import main

if __name__ == "__main__":
    sys.exit(main())
