"""The terminal: arguments in, text and exit status out."""
