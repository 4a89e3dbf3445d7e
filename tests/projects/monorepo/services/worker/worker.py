"""Counts the words of what it is given."""

import sys

from stats import words

print(sum(words(word) for word in sys.argv[1:]))
