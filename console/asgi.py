"""The ASGI application: HTTP to Django, websockets to their consumers."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
pages = get_asgi_application()

# What follows needs the apps, which the line above has loaded.
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from console.delivery import Watched  # noqa: E402
from console.graphql.access import WithCaller  # noqa: E402
from console.graphql.socket import GraphQLSocket  # noqa: E402
from console.origin import OwnPagesOnly  # noqa: E402
from runs.consumers.shell import ShellConsumer  # noqa: E402
from runs.routing import websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": Watched(pages),
        "websocket": URLRouter(
            [
                # The API's sockets carry a key, never a cookie; they look at Origin themselves.
                path("graphql", GraphQLSocket.as_asgi()),
                re_path(r"^v1/shell(?P<path>/.*)?$", WithCaller(ShellConsumer.as_asgi())),  # type: ignore[arg-type]
                # Those of pages carry the session's cookie, so their Origin has to be ours.
                re_path(r"", OwnPagesOnly(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))),  # type: ignore[arg-type]
            ]
        ),
    }
)
