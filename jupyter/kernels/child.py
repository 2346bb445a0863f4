"""Programs that a kernel starts: they end with it."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
# Loaded before any fork: in the child of a process with threads as little as possible should run.
PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent():
    """For `preexec_fn`: who is killed takes the program with it (Linux). The thread that starts it counts as the parent, so it must not end earlier."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
