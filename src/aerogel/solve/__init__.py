"""Runs a graph: by demand, in parallel, each step once, from the store where it can."""
