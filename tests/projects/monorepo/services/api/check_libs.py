"""The libraries, as the stage `test` runs them."""

import unittest

from messages import Greeting
from stats import words
from text import greeting


class Libraries(unittest.TestCase):
    """One test for all."""

    def test_all(self) -> None:
        assert words(greeting("you")) == 2
        assert Greeting("a", "b").words == "b"
