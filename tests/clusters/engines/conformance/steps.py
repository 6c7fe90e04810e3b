"""What the commands of the suite do, in words that every engine's world can put into its own: bash, or a
simulation's script. A scenario is written in these words once."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clusters.engines.sim import script

_NOTHING = script.Log("")


@dataclass(frozen=True)
class Step:
    """One thing that a command does, on every rank or on one."""

    rank: int | None = None

    def bash(self) -> str:
        raise NotImplementedError

    def sim(self) -> script.Statement:
        raise NotImplementedError


@dataclass(frozen=True)
class Of(Step):
    shell: str = ""
    statement: script.Statement = _NOTHING

    def bash(self) -> str:
        return self.shell

    def sim(self) -> script.Statement:
        return self.statement


def say(text: str, *, err: bool = False, rank: int | None = None) -> Step:
    source = "stderr" if err else "stdout"
    shell = f"printf '%s\\n' {shlex.quote(text)}{' >&2' if err else ''}"
    return Of(rank, shell, script.Log(text + "\n", source))


def say_on(gpu: int, text: str, rank: int | None = None) -> Step:
    """Into the file of one GPU's process, as Composer's launcher has it done."""
    file = f'"$MOSAICML_LOG_DIR/$MOSAICML_GPU_LOG_FILE_PREFIX"{gpu}.txt'
    return Of(rank, f"printf '%s\\n' {shlex.quote(text)} >> {file}", script.Log(text + "\n", gpu=gpu))


def write(text: str) -> Step:
    """Without a line end."""
    return Of(None, f"printf %s {shlex.quote(text)}", script.Log(text))


def lines(count: int) -> Step:
    """`line 1` to `line N`."""
    return Of(None, f"seq -f 'line %.0f' {count}", script.Log("line {n}\n", times=count))


def leave(code: int, rank: int | None = None) -> Step:
    return Of(rank, f"exit {code}", script.Exit(code))


def die(signal: int) -> Step:
    return Of(None, f"kill -{signal} $$", script.Exit(128 + signal))


def pause(seconds: float, rank: int | None = None) -> Step:
    return Of(rank, f"sleep {seconds}", script.Run(script.span(seconds)))


def hold(rank: int | None = None) -> Step:
    """Until it is told to stop; without any process below the shell, and so that a trap runs at once."""
    return Of(rank, "while :; do read -t 0.05 <> <(:); done", script.Hang())


def environment() -> Step:
    return Of(None, "env -0 | sort -z | tr '\\0' '\\n'", script.Env())


def deaf() -> Step:
    """It does not hear TERM."""
    return Of(None, "trap '' TERM", script.OnTerm(ignore=True))


def on_term(text: str, code: int) -> Step:
    return Of(None, f"trap 'echo {text}; exit {code}' TERM", script.OnTerm(code=code, text=f"{text}\n"))


def pull(seconds: float) -> Step:
    return Of(None, ":", script.Pull(script.span(seconds)))


def pull_error(case: str, message: str = "") -> Step:
    return Of(None, ":", script.PullError(case, message))


def out_of_memory(rank: int | None = None) -> Step:
    return Of(rank, ":", script.Fail("OutOfMemory", "killed for memory", 137))


def as_bash(steps: Sequence[Step]) -> str:
    return "\n".join(
        step.bash() if step.rank is None else f"if [ $NODE_RANK = {step.rank} ]; then {step.bash()}; fi"
        for step in steps
    )


def as_script(steps: Sequence[Step]) -> str:
    found = []
    for step in steps:
        only = script.Only() if step.rank is None else script.on_ranks(step.rank)
        found.append(f"# sim: {replace(step.sim(), only=only)}")
    return "\n".join(found)
