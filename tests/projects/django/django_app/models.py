"""The table of visitors."""

from django.db import models


class Visitor(models.Model):
    """A name, and how often it was seen."""

    name = models.CharField(max_length=80, unique=True)
    count = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name
