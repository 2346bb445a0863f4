"""A kernel that runs cells one after another and returns all that each of them put out."""

import queue
import time

from jupyter_client.manager import start_new_kernel
from nbformat.v4 import output_from_msg

# Of one cell: a first Rust cell with its crates takes half a minute on an idle machine, several on a busy one.
CELL_SECONDS_MAX = 900
START_SECONDS_MAX = 300
# How often a silent kernel is looked at: one that has died says nothing more.
LOOK_SECONDS = 1
# For a kernel to end by itself: it removes what it has made.
STOP_SECONDS_MAX = 20
OUTPUTS = {"stream", "display_data", "execute_result", "error"}


class KernelFailed(Exception):
    """The kernel died or did not answer."""


class Kernel:
    def __init__(self, name, folder):
        self.name, self.folder = name, folder

    def __enter__(self):
        try:
            self.manager, self.client = start_new_kernel(kernel_name=self.name, startup_timeout=START_SECONDS_MAX, cwd=str(self.folder))
        except RuntimeError as error:
            raise KernelFailed(f"the kernel {self.name} does not start: {error}") from error
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_wait_time = STOP_SECONDS_MAX
        self.manager.shutdown_kernel()

    def run(self, source):
        """The outputs of a cell, in order."""
        outputs, idle = [], False
        request = self.client.execute(source, stop_on_error=False)
        while not idle:
            idle = self.take(request, outputs)
        return outputs

    def take(self, request, outputs):
        """Appends the next message's output; True if the request has ended."""
        message = self.message()
        kind, content = message["msg_type"], message["content"]
        if kind in OUTPUTS:
            outputs.append(output_from_msg(message))
        return kind == "status" and content["execution_state"] == "idle" and message["parent_header"].get("msg_id") == request

    def message(self):
        end = time.monotonic() + CELL_SECONDS_MAX
        while time.monotonic() < end:
            # Before the message is asked for: what it has said last still comes.
            alive = self.manager.is_alive()
            try:
                return self.client.get_iopub_msg(timeout=LOOK_SECONDS)
            except queue.Empty:
                if not alive:
                    raise KernelFailed(f"the kernel {self.name} has died") from None
        raise KernelFailed(f"a cell took more than {CELL_SECONDS_MAX} seconds")
