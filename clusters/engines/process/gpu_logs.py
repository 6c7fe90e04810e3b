"""Files that a rank's processes write for themselves, one for each GPU (mapi §4.7): the streams gpu-N.

    <MOSAICML_LOG_DIR>/gpu_3.txt        what the process of local rank 3 writes

A file is a spool of itself, in a folder of the rank's own: the last bytes before a KILL are there, nothing has to be
emptied before the end can be recorded, and a reader goes on from any offset. Nothing in the folder is believed.

Imported by supervisors: nothing here may be slow to import.
"""

from __future__ import annotations

import os
from itertools import islice

PREFIX = "gpu_"
MOST = 64
"""Files of a rank: more than any node has GPUs."""
MOST_ENTRIES = 1000
"""Of a folder: a rank that makes millions of files costs nobody time but itself."""
_NUMBERS = {f"{PREFIX}{number}.txt": number for number in range(MOST)}


def file_name(number: int) -> str:
    return f"{PREFIX}{number}.txt"


def there(folder: str) -> list[int]:
    """Local ranks that have a file, in order."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                _NUMBERS[entry.name]
                for entry in islice(entries, MOST_ENTRIES)
                if entry.name in _NUMBERS and entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
