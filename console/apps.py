from __future__ import annotations

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "console"
    verbose_name = "Wiring"

    def ready(self) -> None:
        # Whoever rings a doorbell by name, in any process and thread, rings this application's.
        from console.celery import app

        app.set_default()
