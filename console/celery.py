"""Celery: doorbells for the control loop, and the sweep that hears what doorbells missed.

No task outlives a minute, none carries state: the queue may be flushed at any time (design rule 1).
"""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging, task_prerun, worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

from django.conf import settings
from kombu import Queue  # type: ignore[attr-defined]

from console import broker
from console.watchdog import Watchdog

broker.install()

app = Celery("runyard")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    # What a worker listens to: the queue for all, and that of its host's own clusters.
    task_queues=[Queue("celery"), Queue(settings.HOST_QUEUE)],
    task_default_queue="celery",
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    # A lost message costs one sweep; a message kept by a dead worker must not come back an hour later.
    task_acks_late=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "socket_keepalive": True,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "health_check_interval": 10,
        "visibility_timeout": 60,
        "fanout_prefix": True,
    },
    # A web request that rings a doorbell does not hang on a broker that is away.
    task_publish_retry=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_heartbeat=0,
    timezone="UTC",
    beat_max_loop_interval=1,
    beat_schedule={
        "runs.sweep": {
            "task": "runs.sweep",
            "schedule": settings.RUNYARD_SWEEP_SECONDS,
            "options": {"expires": settings.RUNYARD_SWEEP_SECONDS * 2},
        },
        "runs.forget_submissions": {
            "task": "runs.forget_submissions",
            "schedule": 600.0,
            "options": {"expires": 600},
        },
        "runs.purge": {"task": "runs.purge", "schedule": 300.0, "options": {"expires": 300}},
        "clusters.probe": {"task": "clusters.probe", "schedule": 10.0, "options": {"expires": 20}},
    },
)
app.autodiscover_tasks(["runs", "clusters"])

watchdog = Watchdog()
task_prerun.connect(watchdog.note, weak=False)
worker_ready.connect(watchdog.start, weak=False)


@setup_logging.connect
def _keep_our_logging(**_: object) -> None:
    """Django has set up logging already; Celery must not do it again."""
