from __future__ import annotations

from typing import Any

from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from runs.consumers.changes import ChangesConsumer
from runs.consumers.logs import LogConsumer
from runs.consumers.screen import ScreenConsumer

# Page sockets: session and Origin are checked around them (console/asgi.py).
websocket_urlpatterns: list[Any] = [
    path("ws/changes", ChangesConsumer.as_asgi()),
    path("ws/log/<uuid:stream_id>", LogConsumer.as_asgi()),
    path("ws/terminal/<str:name>/<int:rank>", ScreenConsumer.as_asgi()),
    re_path(r"", WebsocketDenier.as_asgi()),
]
