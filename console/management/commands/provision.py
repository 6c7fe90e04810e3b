"""`manage.py provision`: bring database and static files to this version, at every start or deployment.

Idempotent. The last line of stdout is the JSON that `bootstrap` answered; everything else goes to stderr.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Migrate, collect static files, make the first admin and cluster."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, stdout=sys.stderr, skip_checks=True)
        collect_static()
        answer = io.StringIO()
        call_command("bootstrap", stdout=answer)
        self.stdout.write(answer.getvalue().strip().splitlines()[-1])


def collect_static() -> None:
    """Collect, hash and compress static files, unless nothing changed since: it takes seconds."""
    stamp = settings.HOME.run / "static.stamp"
    digest = _digest()
    if stamp.exists() and stamp.read_text() == digest and Path(settings.STATIC_ROOT).exists():
        return
    call_command(
        "collectstatic",
        interactive=False,
        verbosity=0,
        stdout=sys.stderr,
        skip_checks=True,
        # htmx's extensions, which no page loads, import files that are not there.
        ignore_patterns=["ext"],
    )
    stamp.write_text(digest)


def _digest() -> str:
    """Changes when a static file or a package does; reads names, sizes and times, not content."""
    digest = hashlib.sha256((settings.BASE / "requirements" / "runtime.txt").read_bytes())
    for root in settings.STATICFILES_DIRS:
        for path in sorted(Path(root).rglob("*")):
            found = path.stat()
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
