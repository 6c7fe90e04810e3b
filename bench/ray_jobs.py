"""The peer of `bench.submit` and `bench.throughput`, run by Ray's own Python.

For each line on stdin, `<jobs> <clients>`: the seconds that they took together, on stdout.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import ray
from ray.job_submission import JobStatus, JobSubmissionClient


def main() -> None:
    context = ray.init(include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False, num_cpus=2)
    client = JobSubmissionClient(f"http://{context.dashboard_url}")
    time.sleep(10)  # a Ray that has just started is slower than it need be
    print("ready", flush=True)

    def one(_: int) -> bool:
        job = client.submit_job(entrypoint="true")
        while (status := client.get_job_status(job)) not in {JobStatus.SUCCEEDED, JobStatus.FAILED}:
            time.sleep(0.005)
        return bool(status == JobStatus.SUCCEEDED)

    for line in sys.stdin:
        jobs, clients = map(int, line.split())
        begin = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            good = all(threads.map(one, range(jobs)))
        print(time.perf_counter() - begin if good else "nan", flush=True)
    ray.shutdown()


main()
