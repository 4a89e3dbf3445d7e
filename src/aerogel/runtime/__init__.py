"""Runs and inspects containers."""
