"""A worker that hears nothing any more is ended; one that works is not."""

from __future__ import annotations

from console.watchdog import SILENCE, Watchdog


def test_a_minute_without_a_task_ends_the_worker_and_any_task_puts_it_off() -> None:
    now, ended = [0.0], []
    dog = Watchdog(end=lambda: ended.append(now[0]), clock=lambda: now[0])
    now[0] = SILENCE - 1
    assert not dog.look()
    dog.note()
    now[0] = SILENCE + 1
    assert not dog.look()
    now[0] = 2 * SILENCE
    assert dog.look()
    assert ended == [2 * SILENCE]
