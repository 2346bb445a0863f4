"""Jupyter kernel for Elixir: one BEAM session, so bindings, modules and processes stay from cell to cell."""

import asyncio
import queue
import re
import sys
from pathlib import Path

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from session import Session, SessionEnded  # noqa: E402
from tutored import Tutored  # noqa: E402

ANSWER_SECONDS_MAX = 10


class ElixirKernel(Tutored, Kernel):
    tutor_language = "elixir"
    implementation, implementation_version, language = "ebpf-blockchain-elixir", "1.0", "elixir"
    language_info = {"name": "elixir", "mimetype": "text/x-elixir", "file_extension": ".exs", "pygments_lexer": "elixir", "codemirror_mode": "elixir"}
    help_links = [{"text": "Elixir guides", "url": "https://elixir-lang.org/getting-started/introduction.html"}]

    def __init__(self, **options):
        super().__init__(**options)
        self.beam = Session()
        self.language_version = self.beam.versions[0]
        self.language_info = {**self.language_info, "version": self.language_version}
        self.banner = f"Elixir {self.beam.versions[0]} on OTP {self.beam.versions[1]}; one session for all cells"

    def fail(self, name, value, trace):
        content = {"ename": name, "evalue": value, "traceback": trace.splitlines()}
        self.send_response(self.iopub_socket, "error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    async def execute_code(self, code, silent):
        try:
            return await self.evaluate(code, silent)
        except SessionEnded as error:
            self.beam.close()
            try:
                self.beam = await asyncio.to_thread(Session)
            except SessionEnded as second:
                return self.fail("SessionEnded", str(second), f"SessionEnded: {second}")
            text = f"{error}. A new session has started: all bindings and modules are gone, run the notebook from the top."
            return self.fail("SessionEnded", text, "SessionEnded: " + text)

    async def evaluate(self, code, silent):
        answers = self.beam.ask("EVAL", code)
        while True:
            kind, fields = await asyncio.to_thread(next, answers)
            if kind == "DONE":
                return self.done() if fields[0] == "ok" else self.fail(*fields[1:4])
            if not silent:
                self.show(kind, fields)

    def show(self, kind, fields):
        if kind in ("OUT", "ERR"):
            self.send_response(self.iopub_socket, "stream", {"name": "stdout" if kind == "OUT" else "stderr", "text": fields[0]})
        elif kind == "RICH":
            self.send_response(self.iopub_socket, "display_data", {"data": {fields[0]: fields[1]}, "metadata": {}})
        elif kind == "RES":
            content = {"execution_count": self.execution_count, "data": {fields[0]: fields[1]}, "metadata": {}}
            self.send_response(self.iopub_socket, "execute_result", content)

    def ask_now(self, verb, text):
        try:
            return list(self.beam.ask(verb, text, ANSWER_SECONDS_MAX))
        except (SessionEnded, queue.Empty):
            return []

    def do_complete(self, code, cursor_pos):
        answers = self.ask_now("COMPLETE", code[:cursor_pos])
        # Without the arity: the label is what is inserted.
        labels = dict.fromkeys(re.sub(r"/\d+$", "", fields[0]) for kind, fields in answers if kind == "ITEM")
        length = next((int(fields[1]) for kind, fields in answers if kind == "DONE"), 0)
        return {"status": "ok", "matches": list(labels), "cursor_start": cursor_pos - length, "cursor_end": cursor_pos, "metadata": {}}

    def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
        end = cursor_pos + re.match(r"[\w!?]*", code[cursor_pos:]).end()
        text = "".join(fields[1] for kind, fields in self.ask_now("INSPECT", code[:end]) if kind == "RES")
        return {"status": "ok", "found": bool(text), "data": {"text/markdown": text, "text/plain": text} if text else {}, "metadata": {}}

    def do_is_complete(self, code):
        verdict = next((fields[0] for kind, fields in self.ask_now("CHECK", code) if kind == "DONE"), "ok")
        return {"status": {"ok": "complete", "incomplete": "incomplete"}.get(verdict, "invalid"), "indent": "  "}

    async def interrupt_request(self, stream, ident, parent):
        try:
            self.beam.interrupt()
        except SessionEnded:
            pass  # The running cell reports it.
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    async def do_shutdown(self, restart):
        self.beam.close()
        return {"status": "ok", "restart": restart}


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=ElixirKernel)
