"""One module per command: its options, its result, what it does."""
