"""From an attempt's rows to what its engine is given."""

from __future__ import annotations

import yaml
from django.conf import settings

from clusters.engines.base import LaunchSpec, MountedFile
from runs import unseal
from runs.control.inject import inject
from runs.control.place import placements_of
from runs.models import Attempt, RunToken
from runs.states import steps_of, tracker_environment
from teams.crypto import hash_api_key, new_run_token
from teams.unseal import for_run, note_use

PARAMETERS_PATH = "/mnt/config/parameters.yaml"
TOKEN_PATH = "/mnt/config/access_token"


def launch_spec(attempt: Attempt) -> LaunchSpec:
    """Everything that the engine needs, by mapi §4.7, secrets opened: for the launch, and for nothing else.

    Of a variable the platform's value wins, then a secret's, then the run's own. What the attempt's logs
    may not show is remembered first; a token of its own lets it act for its run. Raises `teams.unseal.CannotOpen`.
    """
    run, spec = attempt.run, attempt.run.spec
    injection = inject(for_run(run.team_id, run.creator_id))
    token = new_run_token()
    unseal.remember(attempt, [*injection.needles(), token])
    RunToken.objects.create(attempt=attempt, digest=hash_api_key(token))
    note_use([one.id for one in injection.used], run.name)
    env = {
        "PYTHONUNBUFFERED": "1",
        **{name: str(value) for name, value in spec.env.items()},
        **tracker_environment(spec.submitted.get("integrations"), run.name),
        "RUN_NAME": run.name,
        "COMPOSER_RUN_NAME": run.name,
        "RESUMPTION_INDEX": str(attempt.index),
        "MOSAICML_PLATFORM": "true",
        "MOSAICML_API_ENDPOINT": f"{settings.RUNYARD_URL}/graphql",
        # Without it the client would show the token to the terminals of the platform that it was made for.
        "MOSAICML_MINT_ENDPOINT": f"{settings.RUNYARD_URL.replace('http', 'ws', 1)}/v1/shell",
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
        secrets=injection.variables,
        files=(
            MountedFile(PARAMETERS_PATH, parameters.encode(), 0o444, {"PARAMETERS": "{path}"}),
            MountedFile(TOKEN_PATH, token.encode(), 0o400, {"MOSAICML_ACCESS_TOKEN_FILE": "{path}"}),
            *injection.files,
        ),
        pull_credentials=tuple(injection.pull_credentials),
        placements=placements_of(attempt),
        setup=steps_of(spec.submitted.get("integrations")),
        log_quota=settings.RUNYARD_LOG_QUOTA,
    )
