"""The process engine: ranks are process groups on this host, each below a supervisor of its own.

Two halves meet only in the files of an attempt's private folder:

    engine.py   the six methods        supervisor.py   bootstrap of one detached process a rank
    config.py   a cluster's settings   rank.py         becoming the rank: account, mounts, exec
    layout.py   what lies where        loop.py         output, stop, wind-down, exit record
    launch.py   prepare and start      output.py       quota, back-pressure, a full disk
    outcome.py  what became of a rank  spool.py        the spool's files and marks, both sides
    logs.py     following a spool      family.py       finding and signalling what a rank started
    spawner.py  starting supervisors   serving.py      a warm supervisor.py that forks when asked
    host.py     identity, GPUs         procfs.py records.py bell.py   shared, tiny

The supervisor's half imports nothing of the engine's half, nothing of the platform, and little of
the standard library: where the warm one fails, it is started for a launch, and has to be at the rank's
`exec` in 25 ms.
"""
