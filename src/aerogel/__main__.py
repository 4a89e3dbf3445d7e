"""`python -m aerogel`."""

import sys

from aerogel.cli.main import main

sys.exit(main())
