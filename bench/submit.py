"""How long from submitting `true` until a subscriber sees that it has ended.

    ours   createRun by HTTP, watchRunStatus by websocket, until COMPLETED, on a console of its own
    floor  the same command as a bare subprocess
    peer   Ray Jobs: submit_job, then its status asked for as fast as it answers, until SUCCEEDED

One of each in turn, so that all meet the same load; the median of the rounds' ratios decides.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
import websockets

from tests.stack import Stack

ROUNDS = 15
BAR, AIM = 1 / 10, 1 / 50
HERE = Path(__file__).parent
RAY = HERE.parent / ".cache" / "ray"

CREATE = "mutation($d: CreateRunInput!) { createRun(createRunData: $d) { name status } }"
WATCH = "subscription($d: WatchRunStatusInput!) { watchRunStatus(watchRunStatusInput: $d) }"


class Console:
    """A console and one open socket to it, as a client that follows runs has."""

    def __init__(self) -> None:
        self.stack = Stack()
        self.stack.start()
        environment = self.stack.env
        self.endpoint = environment["MOSAICML_API_ENDPOINT"]
        self.headers = {"Authorization": environment["MOSAICML_API_KEY"]}
        self.http = httpx.Client(headers=self.headers, timeout=30)

    async def run_once(self) -> float:
        url = urlsplit(self.endpoint)._replace(scheme="ws").geturl()
        async with websockets.connect(url, subprotocols=["graphql-transport-ws"]) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "connection_init", "payload": self.headers}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            begin = time.perf_counter()
            run = {"runName": "bench", "image": "none", "command": "true"}
            answer = self.http.post(
                self.endpoint, json={"query": CREATE, "variables": {"d": {"runInput": run}}}
            ).json()
            name = answer["data"]["createRun"][0]["name"]
            variables = {"d": {"name": name}}
            payload = {"query": WATCH, "variables": variables}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
            while True:
                message = json.loads(await socket.recv())
                status = message.get("payload", {}).get("data", {}).get("watchRunStatus")
                if status in {"COMPLETED", "FAILED", "STOPPED"}:
                    assert status == "COMPLETED", f"{name} is {status}"
                    return time.perf_counter() - begin

    def close(self) -> None:
        self.http.close()
        self.stack.stop()
        self.stack.remove()


class Ray:
    """A warm Ray with its dashboard, in an environment of its own, driven through a pipe."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [str(RAY / "bin" / "python"), str(HERE / "ray_jobs.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        assert self.process.stdout is not None
        while self.process.stdout.readline().strip() != "ready":
            if self.process.poll() is not None:
                raise RuntimeError("Ray did not start")

    def run_once(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("1 1\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def rate(self, jobs: int, clients: int) -> float:
        """Jobs a second, of so many that so many clients submit and wait for."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{jobs} {clients}\n")
        self.process.stdin.flush()
        return jobs / float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def bare() -> float:
    begin = time.perf_counter()
    subprocess.run(["bash", "-c", "true"], check=True)
    return time.perf_counter() - begin


def settled(once: Callable[[], float]) -> float:
    """Measure after a pause: nobody pays for what the one before leaves running behind it."""
    time.sleep(1)
    return once()


def install_ray() -> bool:
    """Make Ray's environment, once. False, with a line that says so, if it cannot be had."""
    if (RAY / "ready").exists():
        return True
    print("setting up Ray in .cache/ray …", flush=True)
    steps: list[list[Any]] = [
        [sys.executable, "-m", "venv", RAY],
        [RAY / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", HERE / "ray.txt"],
    ]
    for step in steps:
        if subprocess.run([str(part) for part in step]).returncode:
            print("Ray could not be installed: measuring without it")
            return False
    (RAY / "ready").touch()
    return True


def main() -> int:
    """Print the figures; 1 if the bar is missed."""
    peer = Ray() if install_ray() else None
    console = Console()
    measure: dict[str, Callable[[], float]] = {
        "ours": lambda: asyncio.run(console.run_once()),
        "floor": bare,
    }
    if peer is not None:
        measure["peer"] = peer.run_once
    try:
        rounds = []
        for number in range(ROUNDS + 1):
            times = {name: settled(once) for name, once in measure.items()}
            if number:  # the first one warms up
                rounds.append(times)
    finally:
        console.close()
        if peer is not None:
            peer.close()
    for name in measure:
        values = sorted(times[name] * 1000 for times in rounds)
        print(f"{name:6} median {median(values):8.1f} ms   {values[0]:.1f} … {values[-1]:.1f}")
    over = median(times["ours"] - times["floor"] for times in rounds) * 1000
    print(f"ours − floor: {over:.1f} ms")
    if peer is None:
        return 0
    ratio = median(times["ours"] / times["peer"] for times in rounds)
    print(
        f"ours / Ray Jobs: 1/{1 / ratio:.1f}   (bar 1/{1 / BAR:.0f}, aim 1/{1 / AIM:.0f}; load {os.getloadavg()[0]:.1f})"
    )
    return 0 if ratio <= BAR else 1
