"""From an attempt's rows to what its engine is given."""

from __future__ import annotations

import yaml
from django.conf import settings

from clusters.engines.base import LaunchSpec, MountedFile
from runs.control.place import placements_of
from runs.models import Attempt

PARAMETERS_PATH = "/mnt/config/parameters.yaml"


def launch_spec(attempt: Attempt) -> LaunchSpec:
    """Everything that the engine needs, by mapi §4.7. On a clash of names the platform's value wins."""
    run, spec = attempt.run, attempt.run.spec
    env = {
        "PYTHONUNBUFFERED": "1",
        **{name: str(value) for name, value in spec.env.items()},
        "RUN_NAME": run.name,
        "COMPOSER_RUN_NAME": run.name,
        "RESUMPTION_INDEX": str(attempt.index),
        "MOSAICML_PLATFORM": "true",
        "MOSAICML_API_ENDPOINT": f"{settings.RUNYARD_URL}/graphql",
        "MCLI_DISABLE_UPGRADE_CHECK": "true",
    }
    parameters = yaml.safe_dump(spec.parameters, sort_keys=False, allow_unicode=True)
    return LaunchSpec(
        run_name=run.name,
        attempt_index=attempt.index,
        image=run.image,
        command=spec.command,
        nodes=attempt.nodes,
        gpus_per_node=attempt.gpus // attempt.nodes,
        cpus=attempt.cpus,
        env=env,
        files=(MountedFile(PARAMETERS_PATH, parameters.encode(), 0o444, "PARAMETERS"),),
        placements=placements_of(attempt),
        log_quota=settings.RUNYARD_LOG_QUOTA,
    )
