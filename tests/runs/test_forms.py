"""What people submit: every rule, in words that say what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters.engines.setup import AptPackages, GitRepo, PipPackages
from runs.commands import Compute
from runs.forms import parse_interactive_input, parse_run_input, parse_run_yaml, to_yaml
from runs.states import Priority, RunType, steps_of, tracker_environment
from teams.commands import Refused

LEAST = {"runName": "hello", "image": "python:3.12", "command": "true"}


def problem(**changes: Any) -> str:
    with pytest.raises(Refused) as refused:
        parse_run_input({**LEAST, **changes})
    assert refused.value.code == 400
    assert refused.value.message.startswith("Bad run request: ")
    return refused.value.message.removeprefix("Bad run request: ")


def test_the_least_that_a_run_needs() -> None:
    request = parse_run_input(LEAST)
    assert (request.name, request.image, request.command) == ("hello", "python:3.12", "true")
    assert request.compute == Compute()
    assert request.submitted == LEAST


def test_all_that_is_missing_is_named_as_the_client_reads_it() -> None:
    assert problem(runName="", image=None, command="  ") == (
        "runName is a required field; image is a required field; command is a required field"
    )


@pytest.mark.parametrize("name", ["Hello", "a_b", "-a", "a-", "a.b", "ä", "a b", "a\n", 3])
def test_a_name_is_a_label(name: Any) -> None:
    assert problem(runName=name).startswith("runName: ")


def test_a_name_leaves_room_for_the_suffix() -> None:
    parse_run_input({**LEAST, "runName": "a" * 56})
    for length in range(57, 64):
        assert problem(runName="a" * length).startswith(
            f"runName: has {length} characters; at most 56 are allowed"
        )


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "a/b/c:d",
        "localhost:5000/a_b/c__d-e.f:V1.2",
        "Registry.example.org/a@sha256:" + "0" * 64,
        "a:latest@sha256:" + "F" * 64,
    ],
)
def test_images_that_are_names(image: str) -> None:
    assert parse_run_input({**LEAST, "image": image}).image == image


@pytest.mark.parametrize(
    "image", ["a b", "a:", "/a", "a//b", "team/Upper", "a@sha256:0", "https://a/b", "a" * 501, 3, ["a"]]
)
def test_images_that_are_none(image: Any) -> None:
    assert problem(image=image).startswith("image: ")


def test_a_name_nobody_knows_is_named_with_the_nearest() -> None:
    assert "comand: there is no such field; did you mean command?" in problem(comand="x")
    assert "compute.gpu: there is no such field; did you mean gpus?" in problem(compute={"gpu": 1})
    assert "scheduling.prio: there is no such field; did you mean priority?" in problem(
        scheduling={"prio": 1}
    )
    assert "allowed are" in problem(zzzzzz=1)


def test_older_members_fill_in_for_compute() -> None:
    request = parse_run_input({**LEAST, "cluster": "c", "gpuType": "h100", "gpuNum": 4, "cpus": 2})
    assert request.compute == Compute(cluster="c", gpu_type="h100", gpus=4, cpus=2)
    assert "contradicts" in problem(cluster="a", compute={"cluster": "b"})
    assert parse_run_input({**LEAST, "cpus": 0, "compute": {"cpus": 3}}).compute.cpus == 3


def test_a_gpu_type_may_be_a_number() -> None:
    assert parse_run_input({**LEAST, "compute": {"gpuType": 3090}}).compute.gpu_type == "3090"


@pytest.mark.parametrize(
    ("compute", "field"),
    [
        ({"nodes": 0}, "compute.nodes"),
        ({"nodes": True}, "compute.nodes"),
        ({"gpus": -1}, "compute.gpus"),
        ({"gpus": "8"}, "compute.gpus"),
        ({"gpus": 2**31}, "compute.gpus"),
        ({"cpus": 1.5}, "compute.cpus"),
        ({"gpus": float("inf")}, "compute.gpus"),
        ({"cluster": 3}, "compute.cluster"),
        ({"gpuType": [1]}, "compute.gpuType"),
        ({"nodeNames": ["a"]}, "compute.nodeNames"),
        ([], "compute"),
        ("local", "compute"),
    ],
)
def test_compute_is_checked(compute: Any, field: str) -> None:
    assert problem(compute=compute).startswith(f"{field}: ")


def test_scheduling_is_understood() -> None:
    scheduling = {
        "priority": "LOW",
        "preemptible": True,
        "maxRetries": 3,
        "watchdogEnabled": True,
        "maxDuration": 0.0001,
        "resumable": True,
    }
    request = parse_run_input({**LEAST, "scheduling": scheduling})
    assert (request.priority, request.preemptible, request.max_retries) == (Priority.LOW, True, 3)
    assert (request.retry_on_system_failure, request.max_duration_seconds) == (True, 1)


@pytest.mark.parametrize(
    "scheduling",
    [
        {"priority": "urgent"},
        {"maxRetries": -1},
        {"maxDuration": 0},
        {"maxDuration": "1h"},
        {"maxDuration": 1e9},
        {"preemptible": "yes"},
        {"maxDuration": True},
    ],
)
def test_scheduling_is_checked(scheduling: dict[str, Any]) -> None:
    (field,) = scheduling
    assert problem(scheduling=scheduling).startswith(f"scheduling.{field}: ")


def test_values_of_variables_become_text() -> None:
    given = {"A": "x", "_b": 3, "C9": 1.5, "D": True, "E": None, "F": ""}
    rows = [{"envKey": key, "envValue": value} for key, value in given.items()]
    request = parse_run_input({**LEAST, "envVariables": rows})
    assert request.env == {"A": "x", "_b": "3", "C9": "1.5", "D": "true", "E": "", "F": ""}


@pytest.mark.parametrize(
    "row",
    [
        {"envKey": "A-B"},
        {"envKey": "9A"},
        {"envKey": ""},
        {"envKey": 3},
        {"envValue": 3},
        "A=b",
        {"envKey": "A", "envValue": {}},
        {"envKey": "A", "envValue": "x" * 2**17},
        {"envKey": "A", "value": 1},
        {"envKey": "A\n"},
    ],
)
def test_variables_are_checked(row: Any) -> None:
    assert problem(envVariables=[row]).startswith("envVariables[0]")


def test_what_this_version_does_not_do_is_refused() -> None:
    assert problem(dependentDeployment={"image": "a"}).startswith("dependentDeployment: ")
    parse_run_input({**LEAST, "integrations": [], "dependentDeployment": {}})


WRONG_INTEGRATIONS: list[tuple[Any, str]] = [
    ("x", "integrations: must be a list"),
    ([1], "integrations[0]: must be {type, params}"),
    ([{"type": 3}], "integrations[0]: must be {type, params}"),
    ([{"type": "wandd"}], 'integrations[0]: there is no integration "wandd"; did you mean wandb?'),
    ([{"type": "wandb", "params": {}}], "integrations[0].params: wandb needs project"),
    ([{"type": "comet_ml"}], "integrations[0].params: comet_ml needs project or projectName"),
    ([{"type": "mlflow", "params": []}], "integrations[0].params: must be an object"),
    (
        [{"type": "wandb", "params": {"project": "p", "entitty": "e"}}],
        "integrations[0].params.entitty: wandb has no such parameter; did you mean entity?",
    ),
    ([{"type": "wandb", "params": {"project": 3}}], "integrations[0].params.project: must be text"),
    (
        [{"type": "wandb", "params": {"project": "p", "tags": ["a,b"]}}],
        "integrations[0].params.tags: must be a list of texts",
    ),
    ([{"type": "wandb", "params": {"project": "p"}}] * 2, "integrations[0]: wandb is there 2 times"),
    ([{"type": "git_repo", "params": {}}], "integrations[0].params.gitRepo: must be organisation/name"),
    (
        [{"type": "git_repo", "params": {"gitRepo": "a/b", "gitBrnch": "x"}}],
        "integrations[0].params.gitBrnch: git_repo has no such parameter; did you mean gitBranch?",
    ),
    ([{"type": "git_repo", "params": {"gitRepo": "a/b"}}] * 2, "integrations[1].params.path: b is another"),
    (
        [{"type": "pip_packages", "params": {"packages": []}}],
        "integrations[0].params.packages: must be a list",
    ),
    (
        [{"type": "pip_packages", "params": {"packages": ["a", "--target=/"]}}],
        "integrations[0].params.packages[1]: must be a package such as numpy",
    ),
    (
        [{"type": "pip_packages", "params": {"packages": ["a"], "upgrade": 1}}],
        "integrations[0].params.upgrade: ",
    ),
    (
        [{"type": "apt_packages", "params": {"packages": ["-o=Dpkg::x"]}}],
        "integrations[0].params.packages[0]: must be the name of a package of the system",
    ),
]

WRONG_REPOSITORIES = [
    *({"gitRepo": repo} for repo in (
        "ext::sh -c id", "--upload-pack=id", "file:///etc", "https://me:planted@host.test/a/b", "-u/a", "a", "a/-b",
        "a/../b", "../a/b", "a/b\n", "a/b;id", "a/$(id)", 3,
    )),
    *({"host": host} for host in (
        "-oProxyCommand=id", "me@host", "https://host", "host/path", "host:22:x", "[::ffff:127.0.0.1]", "", "a b",
    )),
    *({"gitBranch": branch} for branch in ("--upload-pack=id", "-b", "a b", "a\nb", "a..b/../c", "")),
    *({"gitCommit": commit} for commit in ("--force", "HEAD", "main", "abc", "g" * 40)),
    *({"path": path} for path in (
        "/etc", "../x", "a/../../x", "-x", "a/-x", "~/x", ".", "./", ".venv", ".venv/x", "a\0b", "$HOME",
    )),
    *({"pipInstall": given} for given in ("--target=/ .", "--prefix /usr .", "-t / .", "--python x .", "'", ["."])),
    {"sshClone": "perhaps"},
    {"gitCloneRecursive": 1},
]  # fmt: skip


@pytest.mark.parametrize("params", WRONG_REPOSITORIES, ids=str)
def test_no_name_of_a_repository_is_an_option_a_program_or_a_way_out(params: dict[str, Any]) -> None:
    (name,) = params
    text = problem(integrations=[{"type": "git_repo", "params": {"gitRepo": "acme/tool", **params}}])
    assert text.startswith(f"integrations[0].params.{name}: ")
    assert "planted" not in text


def test_steps_before_the_command_are_what_was_written() -> None:
    text = (
        "name: hello\nimage: python:3.12\ncommand: 'true'\nintegrations:\n"
        "- integration_type: git_repo\n  git_repo: acme/tool\n  git_branch: v1.0\n  ssh_clone: 'False'\n"
        "  pip_install: --user -e .[dev]\n"
        "- integration_type: git_repo\n  git_repo: acme/group/other.git\n  git_commit: 0123abcd\n"
        "  path: ./deep/er/\n  host: git.test:2222\n"
        "- integration_type: pip_packages\n  packages: [numpy==2.1, 'a @ https://host.test/a.whl']\n  upgrade: true\n"
        "- integration_type: apt_packages\n  packages: [libaio-dev, g++=4:12.2]\n"
    )
    request = parse_run_yaml(text)
    assert steps_of(request.submitted["integrations"]) == (
        GitRepo("acme/tool", branch="v1.0", ssh=False, pip_install=("-e", ".[dev]")),
        GitRepo("acme/group/other", host="git.test:2222", commit="0123abcd", path="deep/er"),
        PipPackages(("numpy==2.1", "a @ https://host.test/a.whl"), upgrade=True),
        AptPackages(("libaio-dev", "g++=4:12.2")),
    )


def test_a_repository_is_reached_by_ssh_unless_it_is_said_otherwise() -> None:
    assert GitRepo("acme/tool").url == "git@github.com:acme/tool.git"
    assert GitRepo("acme/tool", host="git.test:2222").url == "ssh://git@git.test:2222/acme/tool.git"
    assert GitRepo("acme/tool", ssh=False).url == "https://github.com/acme/tool.git"


@pytest.mark.parametrize(("given", "text"), WRONG_INTEGRATIONS)
def test_a_wrong_integration_is_named_with_its_parameter(given: Any, text: str) -> None:
    assert problem(integrations=given).startswith(text)


def test_a_trackers_parameters_are_written_in_yaml_as_the_client_takes_them() -> None:
    text = (
        "name: hello\nimage: python:3.12\ncommand: 'true'\nintegrations:\n- integration_type: mlflow\n"
        "  experiment_name: /x\n  tracking_uri: databricks\n"
    )
    request = parse_run_yaml(text)
    (one,) = request.submitted["integrations"]
    assert one == {"type": "mlflow", "params": {"experimentName": "/x", "trackingUri": "databricks"}}
    assert yaml.safe_load(to_yaml(request.submitted)) == yaml.safe_load(text)


def test_trackers_become_variables_with_the_runs_name() -> None:
    integrations = [
        {
            "type": "wandb",
            "params": {"project": "p", "entity": "e", "group": "g", "jobType": "j", "tags": ["a", "b"]},
        },
        {"type": "comet_ml", "params": {"projectName": "c", "workspace": "w"}},
        {"type": "mlflow", "params": {"experimentName": "/x"}},
    ]
    assert parse_run_input({**LEAST, "integrations": integrations}).submitted["integrations"] == integrations
    assert tracker_environment(integrations, "hello-abc123") == {
        "WANDB_NAME": "hello-abc123",
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "e",
        "WANDB_RUN_GROUP": "g",
        "WANDB_JOB_TYPE": "j",
        "WANDB_TAGS": "a,b",
        "COMET_PROJECT_NAME": "c",
        "COMET_WORKSPACE": "w",
        "MLFLOW_EXPERIMENT_NAME": "/x",
        "MLFLOW_TRACKING_URI": "databricks",
    }


def test_metadata_have_limits() -> None:
    assert problem(metadata={str(i): i for i in range(201)}).startswith("metadata: has 201 keys; at most 200")
    assert problem(metadata={"k" * 201: 1}).startswith("metadata: the key ")
    assert problem(metadata={"big": "x" * 100_000}).startswith("metadata.big: is larger than 0.1 MB")
    assert parse_run_input({**LEAST, "metadata": {"isHeroRun": True}}).run_type is RunType.HERO_RUN


def test_a_request_has_limits() -> None:
    deep: Any = 1
    for _ in range(21):
        deep = [deep]
    assert "more than 20 levels" in problem(parameters={"a": deep})
    assert "more than 10,000 values" in problem(parameters={"a": [0] * 10_001})
    assert "at most 1,048,576 are allowed" in problem(parameters={"a": "x" * 2**20})
    assert "NUL" in problem(parameters={"a": ["b\0"]})
    assert "surrogate" in problem(metadata={"\ud800": 1})
    assert "fewer than 131,072" in problem(command="x" * 131_072)


@pytest.mark.parametrize("raw", [None, [], "x", 3])
def test_a_run_is_an_object(raw: Any) -> None:
    with pytest.raises(Refused, match="runInput: must be an object"):
        parse_run_input(raw)


def test_nothing_is_stored_that_breaks_the_clients_reading() -> None:
    given = {
        **LEAST,
        "parentName": None,
        "compute": None,
        "envVariables": None,
        "parameters": None,
        "cpus": 0,
    }
    assert parse_run_input(given).submitted == {**LEAST, "parentName": None, "cpus": 0}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(
    [
        "runName",
        "image",
        "command",
        "compute",
        "scheduling",
        "envVariables",
        "metadata",
        "parameters",
        "cpus",
        "gpuNum",
        "integrations",
        "x",
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, JSON))
def test_no_input_is_an_internal_error(changes: dict[str, Any]) -> None:
    try:
        request = parse_run_input({**LEAST, **changes})
    except Refused as refused:
        assert refused.code == 400
    else:
        json.dumps(request.submitted, allow_nan=False).encode()


YAML = """\
name: hello
image: python:3.12
compute:
  cluster: local
  gpus: 2
  gpu_type: 3090
scheduling:
  max_duration: 1.5
  retry_on_system_failure: true
env_variables:
  NUM: 3
  SWITCH: off
parameters:
  since: 2026-01-02
  lr: 1.0e-3
command: |
  echo a
  echo b
"""


def test_yaml_is_what_the_client_makes_of_it() -> None:
    request = parse_run_yaml(YAML)
    assert request.submitted == {
        "runName": "hello",
        "image": "python:3.12",
        "compute": {"cluster": "local", "gpus": 2, "gpuType": 3090},
        "scheduling": {"maxDuration": 1.5, "retryOnSystemFailure": True},
        "envVariables": [{"envKey": "NUM", "envValue": 3}, {"envKey": "SWITCH", "envValue": False}],
        "parameters": {"since": "2026-01-02", "lr": 0.001},
        "command": "echo a\necho b",
    }
    assert (request.max_duration_seconds, request.compute.gpu_type) == (5400, "3090")


def test_yaml_goes_there_and_back() -> None:
    submitted = dict(parse_run_yaml(YAML).submitted)
    text = to_yaml(submitted)
    assert parse_run_yaml(text).submitted == submitted
    assert "command: |-\n  echo a\n  echo b\n" in text
    assert "name: hello\n" in text and "gpu_type: 3090" in text and "NUM: 3" in text


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029"])
def test_what_only_yaml_takes_for_a_line_break_comes_back(mark: str) -> None:
    for command in (f"0{mark}0", f"a\nb{mark}c"):
        assert parse_run_yaml(to_yaml({**LEAST, "command": command})).command == command


def test_what_was_not_said_is_not_written() -> None:
    sent: dict[str, Any] = {
        **LEAST,
        "parentName": None,
        "cpus": 0,
        "compute": {},
        "scheduling": {},
        "integrations": [],
        "envVariables": [],
        "parameters": {},
        "metadata": {},
        "dependentDeployment": {},
    }
    assert yaml.safe_load(to_yaml(sent)) == {"name": "hello", "image": "python:3.12", "command": "true"}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=80).filter(
        str.strip
    )
)
def test_every_command_goes_there_and_back(command: str) -> None:
    assert parse_run_yaml(to_yaml({**LEAST, "command": command})).command == command.strip()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [", 1, "cannot be read"),
        ("name: a\nimage: b\nname: c\n", 3, "'name' twice"),
        (
            "name: hello\nimage: python\ncommand: x\ncompute:\n  gpu: 3\n",
            5,
            "compute.gpu (line 5): there is no such field",
        ),
        (
            "name: hello\nimage: python\ncommand: x\nscheduling:\n  max_duration: -1\n",
            5,
            "scheduling.max_duration (line 5)",
        ),
        ("name: Hello\nimage: python\ncommand: x\n", 1, "name (line 1): "),
        (
            "name: hello\nimage: python\ncommand: x\nenv_variables:\n  A-B: 1\n",
            5,
            "env_variables.A-B (line 5)",
        ),
        ("name: hello\ncommand: x\n", None, "image is a required field"),
        ("just words", None, "must be a mapping"),
        ("", None, "name is a required field"),
        ("? [a]\n: b\n", 1, "plain text"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "cannot be read"),
        ("a: &x [1]\nb: [" + "*x, " * 9 + "*x]\n", None, "no such field"),
        ("[" * 3000, None, ""),
        ("a: " + "[" * 30 + "]" * 30, 1, "nested more than 20"),
        (
            "x: &x ["
            + ", ".join("1" * 100)
            + "]\n"
            + "".join(
                f"{c}: &{c} [{', '.join(['*' + p] * 10)}]\n" for p, c in [("x", "a"), ("a", "b"), ("b", "c")]
            ),
            None,
            "more than 10,000 values",
        ),
        ("x" * (2**18 + 1), None, "longer than 262,144 bytes"),
        ("a: &a [*a]", None, ""),
        ("name: \x07", None, "cannot be read"),
        ("name: 2026-01-01\nimage: a\ncommand: 3\n", 3, "command (line 3): must be text"),
    ],
)
def test_bad_yaml_names_the_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_run_yaml(text)
    assert words in refused.value.message
    if line is not None:
        assert getattr(refused.value, "line", None) == line


def test_a_number_with_thousands_of_digits_is_refused_however_it_is_written() -> None:
    for digits in ("0x" + "f" * 5000, "9" * 5000):
        with pytest.raises(Refused):
            parse_run_yaml(f"name: a\nimage: b\ncommand: c\nparameters: {{n: {digits}}}\n")


def test_what_is_not_to_be_kept_is_refused_while_it_is_read() -> None:
    for text, words in (
        ("a: " + "[" * 2500 + "]" * 2500, "nested more than 20 levels deep"),
        ("a: [" + "0," * 120_000 + "0]", "more than 10,000 values"),
        ("a: [" + "{b: " * 2500, "nested more than 20 levels deep"),
        ("a: &a {<<: *a}", ""),
        ("a: {<<: {b: 1}, b: 2}\nc: !!float 1e400\n", "no such field"),
    ):
        with pytest.raises(Refused) as refused:
            parse_run_yaml(text)
        assert words in refused.value.message


def test_the_billion_laughs_stop_at_ten_thousand() -> None:
    lines = ["l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(Refused, match="more than 10,000 values"):
        parse_run_yaml("\n".join(lines))


def test_an_interactive_run_needs_nothing_but_a_life_time() -> None:
    sent = {"runName": "interactive", "image": "mosaicml/pytorch", "command": "", "parentName": None}
    request = parse_interactive_input(sent, 7200)
    assert request.run_type is RunType.INTERACTIVE
    assert request.max_duration_seconds == 7200
    assert request.command == "sleep infinity"
    assert request.submitted == sent
    bare = parse_interactive_input({}, None)
    assert (bare.name, bare.image, bare.max_duration_seconds) == ("interactive", "mosaicml/pytorch", 8 * 3600)
    assert bare.submitted == {}


def test_an_interactive_run_keeps_what_was_said() -> None:
    request = parse_interactive_input({**LEAST, "scheduling": {"maxDuration": 2}}, None)
    assert (request.name, request.command, request.max_duration_seconds) == ("hello", "true", 7200)


@pytest.mark.parametrize("seconds", [0, -1, 2**40])
def test_the_life_time_of_an_interactive_run_has_bounds(seconds: int) -> None:
    with pytest.raises(Refused, match="seconds: must be more than 0"):
        parse_interactive_input({}, seconds)


def test_an_interactive_run_obeys_the_same_rules() -> None:
    for wrong, field in (
        ({"runName": "A B"}, "runName"),
        ({"compute": {"gpuz": 1}}, "did you mean gpus"),
        ([], "must be an object"),
    ):
        with pytest.raises(Refused, match=field):
            parse_interactive_input(wrong, 60)
