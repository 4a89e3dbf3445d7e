"""What `./aerogel` runs in its environment: the source of the checkout beside it, with nothing else on the path."""

import sys

sys.path.insert(0, __file__.removesuffix("tools/start.py") + "src")

try:
    from aerogel.cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # before `main` looks after it
    sys.exit(130)
