"""The sim engine: a cluster that exists only as numbers, for tests, demonstrations and load.

Nothing runs. What every rank of an attempt does is a pure function of a few recorded events (launched,
told to stop, a node lost) and of the time, so whoever reads the same journal sees the same cluster:

    script.py   the language in which a run says what it would do      course.py   a script → one rank's course
    journal.py  the events, in a file that processes share, or in memory
    state.py    events → what is there at a time                       faults.py   how the engine itself misbehaves
    engine.py   the six methods     config.py  a cluster's settings    clock.py    real time, or a test's
"""
