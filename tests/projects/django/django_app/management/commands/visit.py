"""`manage.py visit NAME`: asks for a page without a server."""

from django.core.management.base import BaseCommand
from django.test import Client


class Command(BaseCommand):
    """Visits twice, so that the table is written and read."""

    def add_arguments(self, parser) -> None:
        parser.add_argument("name")

    def handle(self, *, name: str, **_options: object) -> None:
        Client().get(f"/{name}")
        self.stdout.write(Client().get(f"/{name}").content.decode())
