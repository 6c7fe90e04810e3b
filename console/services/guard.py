"""The guard: starts the parent, and starts another one if that is killed.

What supervises the services can itself be killed (the kernel's out-of-memory killer does not ask). The guard
is small and does nothing but wait; the next parent takes over the services that the last one left.
Standard library only, and used before Django is loaded: it should cost a few MiB.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUICK_SECONDS = 10.0
MOST_QUICK_ENDS = 5


def run(argv: Sequence[str]) -> int:
    """Run `argv` until it exits by itself; returns its exit code. Signals to stop are passed on.

    The child stays in our process group: the terminal's Ctrl-C reaches both; to be told twice does no harm.
    """
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is not None:
            with suppress(ProcessLookupError):
                child.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    quick = 0
    while True:
        started = time.monotonic()
        child = subprocess.Popen(argv)
        code = child.wait()
        if code >= 0:
            return code
        quick = quick + 1 if time.monotonic() - started < QUICK_SECONDS else 1
        with suppress(OSError):
            print(f"the parent was killed by signal {-code}", file=sys.stderr, flush=True)
        if quick >= MOST_QUICK_ENDS:
            return 128 - code
