"""Print the GraphQL schema as SDL."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils.module_loading import import_string


class Command(BaseCommand):
    help = "Print the GraphQL schema as SDL; console/schema.graphql is a copy of it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("schema", nargs="?", default="console.schema:schema", help="module:name")

    def handle(self, *args: Any, **options: Any) -> None:
        schema = import_string(options["schema"].replace(":", "."))
        self.stdout.write(schema.as_str())
