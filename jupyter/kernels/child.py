"""Programs that a kernel starts: they end with their cell, and with the kernel."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
# Loaded before any fork: in the child of a process with threads as little as possible should run.
PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
# As much as a pipe holds, and as much as one may be made to hold without privileges.
READ_BYTES, PIPE_BYTES_MAX = 1 << 16, 1 << 20


def die_with_parent():
    """For `preexec_fn`: who is killed takes the program with it (Linux). The thread that starts it counts as the parent, so it must not end earlier."""
    if PRCTL is not None:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A program in a process group of its own, with no input."""

    def __init__(self, argv, **options):
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True, preexec_fn=die_with_parent, **options
        )
        self.lock = threading.Lock()

    def signal(self, number):
        """To it and all that it has started, from any thread; to nobody once `ended` has returned: its number may be another's then."""
        with self.lock, contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                os.killpg(self.process.pid, number)

    async def ended(self, sinks):
        """Its exit code, a negative one is a signal. `sinks` are what takes the bytes of each descriptor.

        What it has started ends with it: nobody could end it later, and it would hold the pipes open.
        """
        loop = asyncio.get_running_loop()
        for descriptor, sink in sinks.items():
            os.set_blocking(descriptor, False)
            loop.add_reader(descriptor, receive, loop, descriptor, sink)
        try:
            # It stays a zombie, so its group keeps its number.
            await asyncio.to_thread(os.waitid, os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            self.signal(signal.SIGKILL)
            with self.lock:
                self.process.wait()
            for descriptor, sink in sinks.items():
                loop.remove_reader(descriptor)
                # Only what is there: one that has left the group may hold the pipe, or print, for ever.
                for _ in range(PIPE_BYTES_MAX // READ_BYTES):
                    receive(loop, descriptor, sink)
        return self.process.returncode


def receive(loop, descriptor, sink):
    """Passes on what can be read now."""
    with contextlib.suppress(BlockingIOError):
        if data := os.read(descriptor, READ_BYTES):
            sink(data)
        else:
            loop.remove_reader(descriptor)
