"""Jupyter kernel for Rust: evcxr, with three things of ours around it.

- `%%tutor`, as in all kernels.
- The last lines of a cell are that cell's. evcxr forwards what a cell prints beside its replies, and may send the end of it after it has said that the cell
  is done. So each cell is followed by a mark on both streams, and whatever stands before the mark is shown under the cell.
- A cache of compiled crates that no other evcxr writes to at the same time (`slots.py`).
"""

import asyncio
import os
import queue
import re
import subprocess
import sys
from pathlib import Path

import zmq
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.connect import write_connection_file

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from child import die_with_parent  # noqa: E402
from scratch import Scratch  # noqa: E402
from slots import cache_home, claim  # noqa: E402
from tutored import Tutored  # noqa: E402

MARK = "\x02end of cell\x03"
BARRIER = 'println!("\\u{2}end of cell\\u{3}"); eprintln!("\\u{2}end of cell\\u{3}");'
START_SECONDS_MAX, ANSWER_SECONDS_MAX, LOOK_SECONDS = 300, 20, 0.5
# evcxr sends one for each line, and drops what nobody has room for.
MESSAGES_MAX = 1 << 17
# Lines that are sent on as one message.
LINES_MAX = 512
OUTPUTS = {"stream", "display_data", "execute_result", "error", "clear_output", "update_display_data"}


class Ended(Exception):
    """evcxr is gone."""


class RustKernel(Tutored, Kernel):
    implementation, implementation_version, language = "ebpf-blockchain-rust", "1.0", "rust"
    language_info = {"name": "rust", "mimetype": "text/rust", "file_extension": ".rs", "pygments_lexer": "rust", "codemirror_mode": "rust"}
    help_links = [{"text": "The Rust Reference", "url": "https://doc.rust-lang.org/reference/"}]
    banner = "Rust by evcxr; all :dep lines belong in the first cell"
    tutor_language = "rust"
    process = client = scratch = None
    panicked, failed = "", {}

    async def begin(self):
        """evcxr with a connection of its own, in a folder that nobody else reads."""
        self.scratch = Scratch("lab-kernel-rust-")
        path, _ = write_connection_file(str(self.scratch.path / "connection.json"))
        # From this very thread: the child dies with the thread that made it.
        self.process = self.spawn(path, self.scratch.path)
        self.client = AsyncKernelClient(connection_file=path)
        self.client.context.setsockopt(zmq.RCVHWM, MESSAGES_MAX)
        self.client.load_connection_file()
        self.client.start_channels()
        try:
            await self.client.wait_for_ready(timeout=START_SECONDS_MAX)
        except RuntimeError as error:
            raise Ended(f"evcxr does not start: {error}") from error

    @staticmethod
    def spawn(path, temporary):
        # What evcxr itself says (crates being compiled) is no cell's output; what cells print comes by messages.
        nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        folder, lock = claim(cache_home())
        # evcxr compiles in temporary folders, and leaves them when it is ended.
        env = {**os.environ, "XDG_CACHE_HOME": str(folder), "TMPDIR": str(temporary)}
        try:
            return subprocess.Popen([os.environ["LAB_EVCXR"], "--control_file", path], env=env, pass_fds=[lock], preexec_fn=die_with_parent, **nowhere)
        finally:
            os.close(lock)  # evcxr has its own copy.

    async def inner(self):
        if self.client is None:
            await self.begin()
        return self.client

    async def message(self, channel):
        """The next message; Ended if there will be none."""
        while True:
            try:
                return await channel.get_msg(timeout=LOOK_SECONDS)
            except queue.Empty:
                if self.process.poll() is not None:
                    raise Ended(f"evcxr has ended with status {self.process.returncode}") from None

    async def reply_to(self, request, seconds=None):
        async def wait():
            while True:
                message = await self.message(self.client.shell_channel)
                if message["parent_header"].get("msg_id") == request:
                    return message["content"]

        return await asyncio.wait_for(wait(), seconds)

    async def execute_code(self, code, silent):
        self.panicked, self.failed, self.held = "", {}, ["", []]
        try:
            client = await self.inner()
            request = client.execute(code, silent=silent, store_history=not silent, stop_on_error=False)
            await self.forward(request, silent)
            reply = await self.reply_to(request)
            if not silent:
                await self.barrier()
                self.flush()
            # evcxr's own reply says only that there was an error.
            return {**self.failed, **reply, "execution_count": self.execution_count}
        except Ended as error:
            self.flush()
            self.end()
            content = {"ename": "KernelEnded", "evalue": f"{error}. All variables are gone, run the notebook from the top.", "traceback": []}
            self.send_response(self.iopub_socket, "error", content)
            return {"status": "error", "execution_count": self.execution_count, **content}

    async def forward(self, request, silent):
        """Everything that the cell puts out, until evcxr says that it is done."""
        while True:
            if len(self.held[1]) >= LINES_MAX or not await self.client.iopub_channel.msg_ready():
                self.flush()
            message = await self.message(self.client.iopub_channel)
            kind, content = message["msg_type"], message["content"]
            if kind == "status":
                if content["execution_state"] == "idle" and message["parent_header"].get("msg_id") == request:
                    return
            elif kind in OUTPUTS and not silent:
                self.show(kind, content)

    def show(self, kind, content):
        if kind == "stream" and content["name"] == "stderr":
            self.panicked += content["text"]
        if kind == "error":
            self.panicked += content.get("evalue", "")
            self.failed = content
        if kind == "execute_result":
            content = {**content, "execution_count": self.execution_count}
        if kind != "stream" or content["name"] != self.held[0]:
            self.flush()
        if kind == "stream":
            self.held[0] = content["name"]
            self.held[1].append(content["text"])
            return
        self.send_response(self.iopub_socket, kind, content)

    def flush(self):
        """Sends the lines that are held: a message for each would be more than a socket holds, and what is too much is dropped there."""
        name, text = self.held
        if text:
            self.send_response(self.iopub_socket, "stream", {"name": name, "text": "".join(text)})
        self.held = ["", []]

    async def barrier(self):
        """Reads on until the mark has come by on both streams, and shows what stands before it."""
        request, open_streams, idle, held = self.client.execute(BARRIER, silent=False, store_history=False, stop_on_error=False), {"stdout", "stderr"}, False, {"stdout": "", "stderr": ""}
        while not idle or open_streams:
            message = await self.message(self.client.iopub_channel)
            kind, content = message["msg_type"], message["content"]
            if kind == "status":
                idle = idle or (content["execution_state"] == "idle" and message["parent_header"].get("msg_id") == request)
            elif kind == "error":
                open_streams.clear()  # A child that a cell has ended prints no mark.
            elif kind == "stream":
                name = content["name"]
                held[name] += content["text"]
                if MARK in held[name]:
                    text, held[name] = re.sub(re.escape(MARK) + r"\n?", "", held[name]), ""
                    open_streams.discard(name)
                    if text.strip("\n"):
                        self.show("stream", {"name": name, "text": text})
            elif kind == "display_data":
                self.show(kind, content)
        await self.reply_to(request)

    def error_of(self, reply):
        """evcxr calls a panic, a failed assertion and `?` on an error a success: what it prints to standard error tells."""
        return self.panicked or super().error_of(reply)

    async def do_complete(self, code, cursor_pos):
        return await self.ask(lambda client: client.complete(code, cursor_pos), {"status": "ok", "matches": [], "cursor_start": cursor_pos, "cursor_end": cursor_pos, "metadata": {}})

    async def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
        return await self.ask(lambda client: client.inspect(code, cursor_pos, detail_level), {"status": "ok", "found": False, "data": {}, "metadata": {}})

    async def do_is_complete(self, code):
        return await self.ask(lambda client: client.is_complete(code), {"status": "unknown"})

    async def ask(self, question, otherwise):
        try:
            return await self.reply_to(question(await self.inner()), ANSWER_SECONDS_MAX)
        except (Ended, TimeoutError):
            return otherwise

    async def interrupt_request(self, stream, ident, parent):
        if self.client is not None:
            self.client.control_channel.send(self.client.session.msg("interrupt_request", {}))
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    def end(self):
        if self.client is not None:
            self.client.stop_channels()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        if self.scratch is not None:
            self.scratch.remove()
        self.client = self.process = self.scratch = None

    async def do_shutdown(self, restart):
        self.end()
        return {"status": "ok", "restart": restart}


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=RustKernel)
