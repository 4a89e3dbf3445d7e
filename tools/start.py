"""What `./aerogel` runs in its environment: the source of the checkout beside it, with nothing else on the path."""

import sys

sys.path.insert(0, __file__.removesuffix("tools/start.py") + "src")

from aerogel.cli.main import main

sys.exit(main())
