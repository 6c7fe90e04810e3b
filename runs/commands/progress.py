"""What a training says about itself in its metadata, understood. Pure: metadata in, progress and events out.

Composer's logger sends these keys about once a minute, all with the prefix `mosaicml/` (mapi §4.7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

PREFIX = "mosaicml/"
PROGRESS = f"{PREFIX}training_progress"
SUB_PROGRESS = f"{PREFIX}training_sub_progress"
_OF = re.compile(r"\[\s*(\w+)\s*=\s*([0-9.]+)\s*/\s*([0-9.]+)\s*\]")
STARTED = "TRAIN_STARTED"
_ONCE: Mapping[str, tuple[str, str]] = {
    f"{PREFIX}data_validated": ("DATA_VALIDATED", "Data validated"),
    f"{PREFIX}model_initialized_time": ("MODEL_INITIALIZED", "Model initialized"),
    f"{PREFIX}train_started_time": (STARTED, "Training started"),
    f"{PREFIX}train_finished_time": ("TRAIN_FINISHED", "Training finished"),
}
EXCEPTION = f"{PREFIX}exception"
TENTHS = 10
"""An event each time that another tenth is done; the bar moves with each update."""


@dataclass(frozen=True)
class Progress:
    """`text` as the training wrote it, and how much of it that is, 0 to 1."""

    text: str
    share: float


@dataclass(frozen=True)
class Derived:
    """An event that metadata stand for. One of the same `type` (and `done`; and for exceptions, text) is not written
    again for an attempt."""

    type: str
    message: str
    done: str = ""
    """How much, where it is an event for each part."""


def progress(metadata: Mapping[str, Any]) -> Progress | None:
    """From `[batch=3/10]`. `[epoch=2/3]` says in which epoch it is, and `[batch=5/10]` beside it how far it is there;
    of the last epoch `[batch=0/10]` is its end, as Composer counts its batches from 1."""
    share = _share(metadata.get(PROGRESS))
    if share is None:
        return None
    text, done, of = share
    inner = _share(metadata.get(SUB_PROGRESS))
    if inner is not None:
        text = f"{text} {inner[0]}"
        if done < of or inner[1] > 0:
            done = max(done - 1, 0.0) + inner[1] / inner[2]
    return Progress(text, min(1.0, done / of))


def _share(value: Any) -> tuple[str, float, float] | None:
    found = _OF.search(value) if isinstance(value, str) and len(value) < 200 else None
    if found is None:
        return None
    try:
        done, of = float(found[2]), float(found[3])
    except ValueError:
        return None
    return (found[0], done, of) if of > 0 and done <= of else None


def estimated_end(since: datetime, since_share: float, now: datetime, share: float) -> datetime | None:
    """When it will be done if it goes on as it did since then; None where that cannot be known yet."""
    done, passed = share - since_share, (now - since).total_seconds()
    if done <= 0 or passed <= 0:
        return None
    seconds = passed * (1.0 - share) / done
    return now + timedelta(seconds=seconds) if seconds < 10 * 366 * 86400 else None


def events(news: Mapping[str, Any], before: float | None, now: Progress | None) -> Iterator[Derived]:
    """What the newest metadata stand for. `before` is the share that was done until then, None = nothing yet."""
    for key, (kind, text) in _ONCE.items():
        if news.get(key) not in (None, False):
            yield Derived(kind, text)
    if now is not None and PROGRESS in news:
        if before is None:
            yield Derived(STARTED, "Training started")
        elif (tenth := int(now.share * TENTHS)) > int(before * TENTHS):
            # The client takes what is in square brackets for markup, and shows nothing of it (mapi §7).
            told = " ".join(now.text.replace("[", "").replace("]", "").split())
            yield Derived("TRAIN_UPDATED", f"Training at {told}", done=f"{tenth * 100 // TENTHS} %")
    if news.get(EXCEPTION):
        yield Derived("FAILED_EXCEPTION", exception_text(news[EXCEPTION]))


def exception_text(value: Any) -> str:
    """Composer sends an object with the exception's class and text; others may send a sentence."""
    if isinstance(value, dict):
        kind = value.get("class") or value.get("type") or value.get("name") or "Exception"
        said = value.get("message") or value.get("error_message") or value.get("exception") or ""
        text = f"{kind}: {said}" if said else str(kind)
    else:
        text = str(value)
    return text[:4000]


def numbers(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Those that are worth a curve: finite, and no moments in time."""
    return {
        key: float(value)
        for key, value in metadata.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and not key.endswith("_time")
        and abs(value) < 1e300
    }
