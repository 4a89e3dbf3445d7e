"""`python -m aerogel`."""

import sys

try:
    from aerogel.cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # before `main` looks after it
    sys.exit(130)
