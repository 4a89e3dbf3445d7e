"""What `./aerogel` runs in its environment: the source of the checkout beside it, and the packages of the environment.

Python starts without its `site` module (`-S`), which costs a third of the start and shows an interrupt as a traceback.
"""

try:
    import sys

    sys.path.insert(0, __file__.removesuffix("tools/start.py") + "src")
    # The folder in which a virtual environment has its packages.
    sys.path.append(
        f"{sys.executable.removesuffix('/bin/python')}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    )

    from aerogel.cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # before `main` looks after it
    sys.exit(130)
