"""Answers with a message."""

import sys

from messages import Greeting
from stats import words
from text import greeting

text = greeting(sys.argv[1])
print(Greeting(sys.argv[1], str(words(text))), text)
