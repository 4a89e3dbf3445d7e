"""Checks that stop nothing: what is legal in a Dockerfile or an image, and better written otherwise."""
