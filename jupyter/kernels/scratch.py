"""Temporary folders of kernels. A kernel that is killed removes nothing: the next one does.

A kernel holds its folder locked; the system frees the lock when it has ended, however that happens.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


class Scratch:
    """A folder that is its maker's until `remove`, or the maker's end."""

    def __init__(self, prefix):
        sweep(prefix)
        self.path, self.lock = made(prefix)
        # One that was swept before it was locked.
        while not self.path.exists():
            os.close(self.lock)
            self.path, self.lock = made(prefix)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def made(prefix):
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        with contextlib.suppress(FileNotFoundError):
            return path, locked(path, fcntl.LOCK_EX)


def locked(path, how):
    """A descriptor that holds the folder until it is closed."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, how)
    except OSError:
        os.close(lock)
        raise
    return lock


def sweep(prefix):
    """Removes the folders whose makers have ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Its maker lives, it is another user's, or another sweeper was faster.
        with contextlib.suppress(OSError):
            lock = locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
