"""The supervisor of one rank: a tiny detached process that outlives everything else of Runyard.

    python -I -S supervisor.py --serve <room for a title>
    python -I -S supervisor.py <descriptor of the report> (<that of the rank's lock> <the rank's private folder>)…

The first is kept warm by an engine's process and forks when asked (serving.py); where that fails, the second
is started for one attempt (14 ms). Either way each rank gets a fork. The environment is empty, and of the
platform's descriptors only the locks are inherited. A rank's lock file is locked: the lock passes from the
engine to the supervisor without a gap and falls when it dies, so "is there a supervisor?" is asked of the
lock, never of a pid.

This file does only what has to happen before the rank's `exec`. It supervises a rank anew, or adopts one
whose supervisor died: then `started.json` is there.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

if __name__ == "__main__":
    # `-I` leaves out the folder of the script. At the end: nothing of ours may hide a standard module.
    sys.path.append(os.path.abspath(__file__ + "/../../../.."))

from clusters.engines.process import procfs, rank
from clusters.engines.process.records import RESERVED_EXIT, read_settings, reserve, utc, write_atomic

PIPE_SIZE = 1 << 20


FALSE = False
if FALSE:  # `typing` costs 3 ms; only the type checker needs it.
    from clusters.engines.process.loop import Loop
    from clusters.engines.process.serving import Title


def load_loop() -> type[Loop]:
    from clusters.engines.process.loop import Loop

    return Loop


def detach(report: int, ranks: list[tuple[int, str]], title: Title | None) -> tuple[int, str]:
    """Fork one supervisor for each (lock, folder), and return in each with its own.

    The first process ends here: whoever started it waits for it, and the supervisors leave its process tree.
    A lock file's content is the pid of the supervisor: for people, and as the sign that one has been there.
    Each signs there, then in the report (spawner.py), before it does anything that could not be done twice.
    """
    for number, (lock, folder) in enumerate(ranks):
        if title is not None:
            title.show(folder)
        if os.fork() == 0:
            os.setsid()
            for other, _ in ranks:
                os.set_inheritable(other, False)  # The rank must not keep the lock alive.
                if other != lock:
                    os.close(other)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
            try:
                os.write(report, b"%d\n" % number)
            except BrokenPipeError:
                pass  # The engine is gone: we are needed all the more.
            os.close(report)
            return lock, folder
    os._exit(0)


def open_pipe(name: str) -> tuple[int, int]:
    """(our end, the rank's end) of a FIFO.

    Both for reading and writing: a rank whose supervisor was killed meets neither SIGPIPE nor end of
    file; it waits, once the pipe is full, for the supervisor that adopts it.
    """
    ours = os.open(name, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass  # Without root an account has 64 MiB of pipes; the usual 64 KiB only mean more turns.
    return ours, os.open(name, os.O_RDWR)


def start(out: int, err: int) -> str:
    """Start the rank. Returns "" once the command's shell runs, else why it could not be started."""
    settings = read_settings("settings")
    has_setup = os.path.exists("setup.json")
    waiting = rank.fork(settings, read_settings("environ"), out, err, has_setup=has_setup)
    found = procfs.stat(waiting.pid)
    assert found is not None  # Our own child, not waited for yet: at least a zombie.
    # Written by hand: everything in it is a number or plain, and `json` takes 9 ms to import.
    started = '{"pid": %d, "start": %d, "boot_id": "%s", "started_at": "%s"}\n'
    record = started % (waiting.pid, found.start, procfs.boot_id(), utc(time.time()))
    write_atomic("started.json", record.encode())
    if os.path.exists("stop.json"):  # Stopped before it started: TERM finds it at the gate.
        write_atomic("term.json", b'{"sent_at": "%s"}\n' % utc(time.time()).encode())
        os.kill(waiting.pid, 15)
    return waiting.open_gate()


def main(arguments: list[str]) -> None:
    """Become the supervisor of one rank. Returns when its exit record is written."""
    title = None
    if arguments[0] == "--serve":
        from clusters.engines.process import serving

        report, ranks, title = serving.serve()
    else:
        report = int(arguments[0])
        ranks = list(zip(map(int, arguments[1::2]), arguments[2::2], strict=True))
        if len(ranks) > 1:
            load_loop()  # Once for all of them, and shared memory, is worth 15 ms before the first `exec`.
    lock, folder = detach(report, ranks, title)
    os.chdir(folder)  # From here on every path is relative, hence short and the attempt's own.
    os.umask(0o077)
    os.dup2(os.open("supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    rank.prctl(rank.PR_SET_CHILD_SUBREAPER, 1)
    stdout, rank_stdout = open_pipe("stdout.fifo")
    stderr, rank_stderr = open_pipe("stderr.fifo")
    adopted = os.path.exists("started.json")
    failure = ""
    if not adopted:
        reserve(RESERVED_EXIT)
        failure = start(rank_stdout, rank_stderr)
    os.close(rank_stdout)
    os.close(rank_stderr)

    loop = load_loop()  # The rank runs: now there is time to import the rest.
    loop(stdout, stderr, adopted=adopted, failure=failure).run()
    os.close(lock)


if __name__ == "__main__":
    main(sys.argv[1:])
