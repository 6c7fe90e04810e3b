"""A doorbell: datagrams with an attempt's key, for whoever has put a socket into the cluster's folder.

Only a hint. Whoever misses it finds out by looking. Listeners are found by listing a folder, so that
none has to be known when a rank starts, and one that starts later hears the end.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def ring(folder: str, message: str) -> None:
    """Tell every listener. Never raises, never blocks; sockets that nobody holds any more are removed.

    `folder` should be a short relative path: a socket's path may have 107 bytes.
    """
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".sock")]
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for name in names:
            path = f"{folder}/{name}"
            try:
                sender.sendto(message.encode(), path)
            except ConnectionRefusedError:
                with suppress(OSError):
                    os.unlink(path)
            except OSError:
                continue  # Its queue is full, or it went away: it will look by itself.
