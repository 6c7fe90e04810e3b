"""Four ranks that write 2,000 lines a second for half a minute: nothing is lost, pages still answer."""

from __future__ import annotations

import time
from statistics import quantiles

from tests.client.real import Client
from tests.stack import Stack
from tests.whole.browser import logged_in

SECONDS, RATE = 30, 500
FLOOD = f"""python3 - <<'EOF'
import os, sys, time
rank = os.environ["NODE_RANK"]
begin = time.monotonic()
for second in range({SECONDS}):
    for part in range(10):
        for n in range({RATE} // 10):
            print(f"rank {{rank}} line {{second * {RATE} + part * {RATE} // 10 + n}} " + "x" * 80)
        sys.stdout.flush()
        time.sleep(max(0, begin + second + (part + 1) / 10 - time.monotonic()))
EOF"""


def test_nothing_is_lost_and_pages_still_answer(stack: Stack, client: Client) -> None:
    name = client.submit(FLOOD, compute={"nodes": 4})
    assert client.wait(name, "RUNNING") == "RUNNING"
    times = []
    with logged_in(stack) as browser:
        end = time.monotonic() + SECONDS - 5
        while time.monotonic() < end:
            begin = time.perf_counter()
            assert browser.get("/runs").status_code == 200
            assert browser.get(f"/runs/{name}").status_code == 200
            times.append(time.perf_counter() - begin)
    assert client.wait(name, timeout=120) == "COMPLETED"
    print(f"two pages: median {quantiles(times)[1] * 1000:.0f} ms, worst {max(times) * 1000:.0f} ms")
    for rank in range(4):
        lines = client.logs(name, rank).splitlines()
        assert lines == [f"rank {rank} line {n} " + "x" * 80 for n in range(SECONDS * RATE)]
