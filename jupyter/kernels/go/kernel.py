"""Jupyter kernel for Go: GoNB's cell rules, the real compiler, nothing to download."""

import asyncio
import codecs
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from cells import significant  # noqa: E402
from child import Child  # noqa: E402
from program import STANDARD, CellError, Program, readable  # noqa: E402
from scratch import Scratch  # noqa: E402
from tutored import Tutored  # noqa: E402

# What one cell may print; a loop that prints for ever would fill the browser.
OUTPUT_BYTES_MAX = 1 << 20
# What a display message counts besides its text: many short ones would fill the browser, too.
DISPLAY_BYTES = 1 << 10
# Until a program that does not heed an interrupt is killed.
INTERRUPT_SECONDS = 3
# Warmed by `lab install` with these very flags: other flags compile the standard library anew.
BUILD_FLAGS = ["-trimpath", "-ldflags=-s -w"]
# What go builds with a C compiler only.
NEEDS_C = {"-race", "-msan", "-asan"}
KEYWORDS = "break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var".split()


def go_binary():
    """The toolchain of the environment that runs the kernel, else the one on the path."""
    try:
        import go
    except ImportError:
        return shutil.which("go")
    return str(Path(go.__file__).parent / "bin" / "go")


def environment():
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOTELEMETRY": "off", "GOPROXY": "off", "CGO_ENABLED": os.environ.get("CGO_ENABLED", "0")}


def make_module(folder, version):
    """A module with the display package in it, under the path that GoNB's notebooks import."""
    display = Path(folder) / "gonb" / "gonbui"
    display.mkdir(parents=True)
    shutil.copy(HERE / "display.go", display / "gonbui.go")
    (display.parent / "go.mod").write_text(f"module github.com/janpfeifer/gonb\n\ngo {version}\n")
    (Path(folder) / "go.mod").write_text(
        f"module lab\n\ngo {version}\n\nrequire github.com/janpfeifer/gonb v0.0.0\n\nreplace github.com/janpfeifer/gonb => ./gonb\n"
    )


class OutputTooLarge(Exception):
    """The cell printed more than OUTPUT_BYTES_MAX."""


class Printed:
    """Counts what a program and all that it starts print and show, and ends them when it is too much."""

    def __init__(self, child):
        self.child, self.bytes, self.too_much = child, 0, False

    def add(self, count):
        self.bytes += count
        if self.bytes > OUTPUT_BYTES_MAX:
            self.too_much = True
            self.child.signal(signal.SIGKILL)


class GoKernel(Tutored, Kernel):
    tutor_language = "go"
    implementation, implementation_version, language = "ebpf-blockchain-go", "1.0", "go"
    language_info = {"name": "go", "mimetype": "text/x-go", "file_extension": ".go", "pygments_lexer": "go", "codemirror_mode": "go"}
    help_links = [{"text": "The Go specification", "url": "https://go.dev/ref/spec"}]

    def __init__(self, **options):
        super().__init__(**options)
        self.go, self.environment = go_binary(), environment()
        if self.go is None:
            raise SystemExit("no Go toolchain: run `jupyter/lab install`")
        version = subprocess.run([self.go, "env", "GOVERSION"], capture_output=True, text=True, env=self.environment, check=True).stdout.strip()
        self.language_version = version.removeprefix("go")
        self.language_info = {**self.language_info, "version": self.language_version}
        self.banner = f"Go {self.language_version}, cells by GoNB's rules: declarations stay, %% begins the body of main"
        self.scratch = Scratch("lab-kernel-go-")
        self.folder = self.scratch.path
        # What a compiler that is killed leaves.
        self.environment["GOTMPDIR"] = str(self.folder)
        make_module(self.folder, ".".join(self.language_version.split(".")[:2]))
        self.program, self.child, self.interrupted, self.flags = Program(), None, False, []

    def write(self, name, text):
        self.send_response(self.iopub_socket, "stream", {"name": name, "text": text})

    def fail(self, name, value, details=""):
        content = {"ename": name, "evalue": value, "traceback": (details or f"{name}: {value}").splitlines()}
        self.send_response(self.iopub_socket, "error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    async def run(self, argv, stream=True, display=False):
        """(exit code, standard error) of a command in the module's folder; a negative code is a signal."""
        reader, writer = os.pipe() if display else (None, None)
        env = {**self.environment, **({"LAB_DISPLAY_FD": str(writer)} if display else {})}
        self.interrupted = False
        try:
            self.child = child = Child(argv, cwd=self.folder, env=env, pass_fds=(writer,) if display else ())
            printed, errors = Printed(child), []
            out, err = child.process.stdout, child.process.stderr
            sinks = {out.fileno(): self.printer("stdout", stream, printed), err.fileno(): self.printer("stderr", stream, printed, errors)}
            if display:
                sinks[reader] = self.shower(printed)
            with out, err:
                code = await child.ended(sinks)
        finally:
            self.child = None
            for descriptor in (reader, writer) if display else ():
                os.close(descriptor)
        if printed.too_much:
            raise OutputTooLarge(f"more than {OUTPUT_BYTES_MAX} bytes; the program was ended")
        return code, "".join(errors)

    def printer(self, name, stream, printed, keep=None):
        """Takes what a program prints."""
        text_of = codecs.getincrementaldecoder("utf-8")("replace").decode

        def take(data):
            # To the end of the pipe, whatever happens: a program whose pipe is full does not end.
            if printed.too_much:
                return
            text = text_of(data)
            if keep is not None:
                keep.append(text)
            if stream and text:
                self.write(name, text)
            printed.add(len(data))

        return take

    def shower(self, printed):
        """Takes display messages, a line each."""
        unfinished = bytearray()

        def take(data):
            if printed.too_much:
                return
            *lines, rest = (bytes(unfinished) + data).split(b"\n")
            unfinished[:] = rest
            for line in lines:
                with contextlib.suppress(ValueError):  # A program may write anything there.
                    self.send_response(self.iopub_socket, "display_data", {"data": json.loads(line), "metadata": {}})
            printed.add(len(data) + len(lines) * DISPLAY_BYTES)

        return take

    async def execute_code(self, code, silent):
        try:
            return await self.execute_cell(code, f"cell[{self.execution_count}]")
        except CellError as error:
            return self.fail("SyntaxError", str(error), str(error))
        except OutputTooLarge as error:
            return self.fail("OutputTooLarge", str(error))

    async def execute_cell(self, code, name):
        program, cell, main = self.program.with_cell(code, name)
        test = False
        for command in cell.commands:
            word = command.split()[0]
            if word == "%test":
                test = True
            elif word == "%goflags":
                if missing := self.set_flags(command.split()[1:]):
                    return self.fail("NoCompiler", missing)
            elif word == "%reset":
                self.program = Program()
            elif command.startswith("!"):
                code, _ = await self.run(["sh", "-c", command[1:]])
                if self.interrupted:
                    return self.fail("Interrupted", "the command was interrupted")
                if code:
                    return self.fail("ShellError", f"exit status {code}")
            else:
                return self.fail("UnknownCommand", f"{word}: known are %%, %test, %goflags, %reset and !command")
        if not cell.chunks and cell.body is None:
            return self.done()
        source = program.source(cell, main, name, test)
        for old in ("main.go", "main_test.go"):
            Path(self.folder, old).unlink(missing_ok=True)
        Path(self.folder, "main_test.go" if test else "main.go").write_text(source)
        if test:
            return await self.run_tests(program)
        return await self.build_and_run(program, cell, main)

    def set_flags(self, flags):
        """What is missing for them, or None. The others build without C: such programs start sooner, and need no compiler of it."""
        needs = NEEDS_C.intersection(flags)
        compiler = (shlex.split(self.environment.get("CC", "")) or ["gcc"])[0]
        if needs and shutil.which(compiler, path=self.environment.get("PATH")) is None:
            return f"{min(needs)} needs a C compiler, and there is no {compiler}: install it, on Debian with apt-get install gcc libc6-dev"
        self.flags, self.environment["CGO_ENABLED"] = flags, "1" if needs else environment()["CGO_ENABLED"]
        return None

    async def run_tests(self, program):
        code, _ = await self.run([self.go, "test", "-vet=off", "-v", *self.flags, "."])
        if self.interrupted:
            return self.fail("Interrupted", "the tests were interrupted; nothing was declared")
        if code:
            return self.fail("TestFailed", f"go test: exit status {code}")
        self.program = program
        return self.done()

    async def build_and_run(self, program, cell, main):
        code, errors = await self.run([self.go, "build", *BUILD_FLAGS, *self.flags, "-o", "cell", "."], stream=False)
        if self.interrupted:
            return self.fail("Interrupted", "the compiler was interrupted; nothing was declared")
        if code:
            message = readable(errors)
            return self.fail("CompileError", message.split("\n")[0], message)
        self.program = program
        if cell.body is None and main is None:
            return self.done()
        code, errors = await self.run(["./cell", *cell.arguments], display=True)
        if code == 0:
            return self.done()
        if self.interrupted:
            return self.fail("Interrupted", "the program was interrupted; declarations of all cells are kept")
        if code < 0:
            return self.fail("Crashed", f"the program was ended by {signal.Signals(-code).name}; declarations of all cells are kept")
        panic = re.search(r"^panic: (.*)", errors, re.M)
        return self.fail("Panic" if panic else "ExitStatus", panic[1] if panic else f"exit status {code}")

    def do_complete(self, code, cursor_pos):
        """Names of this notebook, keywords and packages. Types and members are the language server's work."""
        prefix = re.search(r"\w*$", code[:cursor_pos]).group()
        names = {name.rsplit(".", 1)[-1] for names in self.program.declarations for name in names}
        matches = sorted(each for each in names | set(KEYWORDS) | set(STANDARD) if each.startswith(prefix)) if prefix else []
        return {"status": "ok", "matches": matches, "cursor_start": cursor_pos - len(prefix), "cursor_end": cursor_pos, "metadata": {}}

    async def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
        """What `go doc` says of the name at the cursor; of the notebook's own names, their declaration."""
        before, after = re.search(r"[\w.]*$", code[:cursor_pos]).group(), re.match(r"\w*", code[cursor_pos:]).group()
        name = before + after
        text = "\n\n".join(chunk.text for names, (chunk, _) in self.program.declarations.items() if name in names)
        package, _, member = name.partition(".")
        if not text and package in STANDARD:
            query = [STANDARD[package], *([member] if member else [])]
            result = await asyncio.to_thread(subprocess.run, [self.go, "doc", *query], capture_output=True, text=True, env=self.environment, cwd=self.folder)
            text = result.stdout
        return {"status": "ok", "found": bool(text), "data": {"text/plain": text} if text else {}, "metadata": {}}

    def do_is_complete(self, code):
        depth = sum((mark.text in "([{") - (mark.text in ")]}") for mark in significant(code) if mark.kind == "operator")
        return {"status": "incomplete", "indent": "\t"} if depth > 0 else {"status": "complete"}

    async def interrupt_request(self, stream, ident, parent):
        # Another thread than the cell's.
        if (child := self.child) is not None:
            self.interrupted = True
            child.signal(signal.SIGINT)
            asyncio.get_running_loop().call_later(INTERRUPT_SECONDS, child.signal, signal.SIGKILL)
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    async def do_shutdown(self, restart):
        if (child := self.child) is not None:
            child.signal(signal.SIGKILL)
        self.scratch.remove()
        return {"status": "ok", "restart": restart}


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=GoKernel)
