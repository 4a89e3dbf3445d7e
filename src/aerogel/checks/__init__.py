"""Checks of a finished image: whether what a build added can run on what is below it."""
