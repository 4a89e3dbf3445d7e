"""Runs one command, or one file job, in a root file system of its own."""
