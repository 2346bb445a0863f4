"""evcxr's cache of compiled crates, one for each running evcxr.

evcxr shares one cache between all of its processes without any lock (`evcxr/src/module/cache.rs` of 0.22): a crate is refused as not compilable while
another process rewrites that entry's count of hits, and for ever if it dies in between. So each process gets a folder that nobody else uses: the first
one whose lock is free, so that a single notebook always finds the same warm one. The lock is a file that evcxr and all that it starts hold open: the
system frees it when the last of them has ended, however that happens.
"""

import fcntl
import itertools
import os
import shutil
from pathlib import Path


def cache_home():
    """Where evcxr's cache would be: XDG_CACHE_HOME, else the user's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def claim(home):
    """(folder, descriptor): the folder is its holder's until the last copy of the descriptor is closed."""
    for number in itertools.count():
        folder = home / "evcxr-slots" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        mend(folder / "evcxr")
        return folder, lock
    raise AssertionError("there is always another number")


def mend(cache):
    """Removes entries that a process which was killed has left without their count: evcxr would fail on them, not compile again."""
    for entry in cache.glob("*/"):
        try:
            int((entry / "hits").read_text())
        except (OSError, ValueError):
            shutil.rmtree(entry)
