"""`python -m halffull` is the same as `halffull`."""

import sys

from halffull.cli import main

sys.exit(main())
