"""What `./aerogel` runs in its environment: the source of the checkout beside it, and the packages of the environment.

Python starts without its `site` module (`-S`), which costs a third of the start and shows an interrupt as a traceback.
Where the launcher could, it has blocked SIGINT, so that none comes before there is somebody to look after it.
"""

try:
    import sys

    sys.path.insert(0, __file__.removesuffix("tools/start.py") + "src")
    # The folder in which a virtual environment has its packages.
    sys.path.append(
        f"{sys.executable.rpartition('/bin/')[0]}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    )

    from aerogel.cli.main import main

    _signal = sys.modules["_signal"]
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
    sys.exit(main())
except KeyboardInterrupt:  # before `main` looks after it
    sys.stderr.write("canceled\n")
    sys.exit(130)
