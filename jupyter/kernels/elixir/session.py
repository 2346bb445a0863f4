"""A BEAM session as a child process; see session.exs for the lines that go over its pipes."""

import base64
import itertools
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECONDS_MAX = 120
# Unread lines of one request. Beyond it the reader waits, then the pipe fills, then the BEAM waits.
LINES_MAX = 4096
# Kinds of messages whose texts may be put together.
PRINTED = {"OUT", "ERR"}


class SessionEnded(Exception):
    """The BEAM is gone: `System.halt`, a crash of a native function, or killed."""


def encode(text):
    return base64.b64encode(text.encode())


def decode(field):
    return base64.b64decode(field).decode("utf-8", "replace")


def joined(answers, message):
    """(a message with the texts behind it that are there already and go to the same stream, the message after it or None).

    A message to the front end for each short line would be more than its socket holds: what is too much is dropped there, the cell's end among it.
    """
    kind, fields = message
    texts, following = list(fields), None
    while kind in PRINTED and following is None and not answers.empty():
        following = answers.get()
        if following[0] == kind:
            texts.extend(following[1])
            following = None
    return (kind, ["".join(texts)] if kind in PRINTED else fields), following


class Session:
    def __init__(self):
        program = shutil.which("elixir")
        if program is None:
            raise SessionEnded("elixir is not installed: run `jupyter/lab doctor`")
        # Descriptor 3 is the BEAM's input, which is never used, 4 its output. A shell moves them there: in the child
        # of a process with threads no Python code should run.
        unused_read, self.unused = os.pipe()
        answers, answers_write = os.pipe()
        script = f'exec 3<&{unused_read} 4>&{answers_write}; exec "$@"'
        # A sleeping scheduler instead of a spinning one: many kernels share few cores.
        argv = ["bash", "-c", script, "elixir", program, "--erl", "+sbwt none +sbwtdcpu none +sbwtdio none", str(HERE / "session.exs")]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=None if os.environ.get("LAB_DEBUG") else subprocess.DEVNULL,
            pass_fds=(unused_read, answers_write), start_new_session=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        os.close(unused_read)
        os.close(answers_write)
        self.waiting, self.numbers, self.lock = {}, itertools.count(1), threading.Lock()
        self.versions, self.evaluating, self.ended = ("", ""), None, False
        ready = threading.Event()
        threading.Thread(target=self.read, args=(os.fdopen(answers), ready), daemon=True).start()
        if not ready.wait(START_SECONDS_MAX) or self.ended:
            self.close()
            raise SessionEnded("the Elixir session did not start")

    def read(self, pipe, ready):
        for line in pipe:
            kind, number, *fields = line.rstrip("\n").split(" ")
            message = (kind, [decode(field) for field in fields])
            if kind == "READY":
                self.versions = tuple(message[1])
                ready.set()
                continue
            # What a linked process prints after its cell belongs to the cell that runs now, if any does.
            target = self.waiting.get(number) or self.waiting.get(self.evaluating)
            if target is not None:
                target.put(message)
        self.ended = True
        ready.set()
        with self.lock:
            for target in self.waiting.values():
                target.put(("ENDED", []))

    def send(self, verb, number, *fields):
        try:
            with self.lock:
                self.process.stdin.write(b" ".join([verb.encode(), number.encode(), *map(encode, fields)]) + b"\n")
                self.process.stdin.flush()
        except OSError as error:
            raise SessionEnded("the Elixir session is gone") from error

    def ask(self, verb, text, timeout=None):
        """Yields (kind, fields) up to and including DONE."""
        number = str(next(self.numbers))
        answers = queue.Queue(LINES_MAX)
        with self.lock:
            if self.ended:
                raise SessionEnded("the Elixir session is gone")
            self.waiting[number] = answers
        if verb == "EVAL":
            self.evaluating = number
        try:
            self.send(verb, number, text)
            following = None
            while True:
                (kind, fields), following = joined(answers, following or answers.get(timeout=timeout))
                if kind == "ENDED":
                    raise SessionEnded("the Elixir session ended (System.halt, or the system ended it)")
                yield kind, fields
                if kind == "DONE":
                    return
        finally:
            self.waiting.pop(number, None)

    def interrupt(self):
        self.send("INTERRUPT", "0")

    def close(self):
        for pipe in (self.process.stdin,):
            try:
                pipe.close()
            except OSError:
                pass
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.unused is not None:
            os.close(self.unused)
            self.unused = None
