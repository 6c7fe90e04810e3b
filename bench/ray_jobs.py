"""The peer of `bench.submit`, run by Ray's own Python: for each line on stdin, one job's seconds on stdout."""

from __future__ import annotations

import sys
import time

import ray
from ray.job_submission import JobStatus, JobSubmissionClient


def main() -> None:
    context = ray.init(include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False, num_cpus=2)
    client = JobSubmissionClient(f"http://{context.dashboard_url}")
    time.sleep(10)  # a Ray that has just started is slower than it need be
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        job = client.submit_job(entrypoint="true")
        while (status := client.get_job_status(job)) not in {JobStatus.SUCCEEDED, JobStatus.FAILED}:
            time.sleep(0.005)
        print(time.perf_counter() - begin if status == JobStatus.SUCCEEDED else "nan", flush=True)
    ray.shutdown()


main()
