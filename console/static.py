"""How static files are served: under names that contain their hash, imports of scripts included."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class Storage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Rewrites `import` paths too: after an upgrade no browser mixes old modules with new ones."""

    support_js_module_import_aggregation = True
