from __future__ import annotations

from typing import Any

from django.urls import path

from runs.consumers.changes import ChangesConsumer
from runs.consumers.logs import LogConsumer

# Page sockets: session and Origin are checked around them (console/asgi.py).
websocket_urlpatterns: list[Any] = [
    path("ws/changes", ChangesConsumer.as_asgi()),
    path("ws/log/<uuid:stream_id>", LogConsumer.as_asgi()),
]
