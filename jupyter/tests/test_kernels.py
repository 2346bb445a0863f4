"""The kernels over the wire: the protocol's own suite, then what goes wrong in a notebook."""

import os
import re
import shutil
import signal
import unittest

import jupyter_kernel_test
import pytest
from jupyter_client.manager import start_new_kernel
from laboratory import kernel as driver
from laboratory.places import evcxr

SECONDS_MAX = 60


class GoProtocol(jupyter_kernel_test.KernelTests):
    kernel_name, language_name, file_extension = "go", "go", ".go"
    code_hello_world = '%%\nfmt.Println("hello, world")'
    code_stderr = '%%\nfmt.Fprintln(os.Stderr, "no")'
    code_display_data = [{"code": '%%\ngonbui.DisplaySVG("<svg/>")', "mime": "image/svg+xml"}]
    code_generate_error = "%%\nundefined()"
    completion_samples = [{"text": "retu", "matches": ["return"]}]
    complete_code_samples, incomplete_code_samples = ["func f() {}"], ["func f() {"]
    code_inspect_sample = "strings.ToUpper"


class ElixirProtocol(jupyter_kernel_test.KernelTests):
    kernel_name, language_name, file_extension = "elixir", "elixir", ".exs"
    code_hello_world = 'IO.puts("hello, world")'
    code_stderr = 'IO.puts(:stderr, "no")'
    code_execute_result = [{"code": "6 * 7", "result": "42"}]
    code_display_data = [{"code": 'Lab.svg("<svg/>")', "mime": "image/svg+xml"}]
    code_generate_error = 'raise "no"'
    completion_samples = [{"text": "Enum.map_", "matches": ["map_every", "map_intersperse", "map_join", "map_reduce"]}]
    complete_code_samples, incomplete_code_samples, invalid_code_samples = ["1 + 1"], ["foo("], [")"]
    code_inspect_sample = "Enum.map"


class Notebook(unittest.TestCase):
    """One kernel for the tests of a class; `run` gives (reply, stdout, stderr)."""

    kernel = None

    @classmethod
    def setUpClass(cls):
        if cls.kernel is None:
            raise unittest.SkipTest("the base of the classes below")
        cls.manager, cls.client = start_new_kernel(kernel_name=cls.kernel, startup_timeout=SECONDS_MAX)

    @classmethod
    def tearDownClass(cls):
        cls.client.stop_channels()
        cls.manager.shutdown_kernel()

    def run_cell(self, code, when_running=None):
        request = self.client.execute(code)
        text = {"stdout": "", "stderr": ""}
        while True:
            message = self.client.get_iopub_msg(timeout=SECONDS_MAX)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                text[content["name"]] += content["text"]
                if when_running and "ready" in text["stdout"]:
                    when_running()
                    when_running = None
            elif kind == "execute_result":
                text["stdout"] += content["data"]["text/plain"]
            elif kind == "status" and content["execution_state"] == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=SECONDS_MAX)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"], text["stdout"], text["stderr"]

    def fails(self, code, name, pattern, when_running=None):
        reply, _, _ = self.run_cell(code, when_running)
        self.assertEqual((reply["status"], reply.get("ename")), ("error", name))
        self.assertRegex("\n".join([reply["evalue"], *reply["traceback"]]), pattern)

    def prints(self, code, expected):
        reply, out, _ = self.run_cell(code)
        self.assertEqual((reply["status"], out.strip()), ("ok", expected))


class Go(Notebook):
    kernel = "go"

    def setUp(self):
        self.run_cell("var kept = 41")

    def still_lives(self):
        self.prints("%%\nfmt.Println(kept + 1)", "42")

    def test_compile_error_names_the_cells_line(self):
        self.fails("var ok = 1\n\n%%\n\nundefined()", "CompileError", r"cell\[\d+\]:5:\d*:? ?undefined")
        self.fails("%%\nfmt.Println(ok)", "CompileError", "undefined: ok")
        self.still_lives()

    def test_panic(self):
        self.fails('%%\npanic("at the disco")', "Panic", "at the disco")
        self.still_lives()

    def test_exit_status(self):
        self.fails("%%\nos.Exit(7)", "ExitStatus", "exit status 7")

    def test_interrupt(self):
        self.fails('%%\nfmt.Println("ready")\ntime.Sleep(time.Hour)', "Interrupted", "declarations", self.manager.interrupt_kernel)
        self.still_lives()

    def test_huge_output(self):
        self.fails('%%\nfor { fmt.Println(strings.Repeat("a", 1000)) }', "OutputTooLarge", "1048576 bytes")
        self.still_lives()

    def test_huge_displays(self):
        self.fails('%%\nfor { gonbui.DisplayHTML("x") }', "OutputTooLarge", "1048576 bytes")
        self.fails('%%\ngonbui.DisplayHTML(strings.Repeat("a", 2_000_000))', "OutputTooLarge", "1048576 bytes")
        self.still_lives()

    def test_a_character_on_the_border_of_two_reads_stays_whole(self):
        _, out, _ = self.run_cell('%%\nos.Stdout.WriteString("ready" + strings.Repeat("é", 200_000))')
        self.assertEqual(out, "ready" + "é" * 200_000)

    def test_an_interrupt_that_is_not_heeded(self):
        self.fails('import "os/signal"\n%%\nsignal.Ignore(os.Interrupt)\nfmt.Println("ready")\nfor {}', "Interrupted", "declarations", self.manager.interrupt_kernel)
        self.fails("!echo ready; trap '' INT; sleep 1000", "Interrupted", "command", self.manager.interrupt_kernel)
        self.still_lives()

    def test_what_a_command_leaves_running_ends_with_it(self):
        reader, writer = os.pipe()
        with os.fdopen(reader) as pipe:
            self.prints(f"!sleep 1000 >/proc/{os.getpid()}/fd/{writer} & echo started", "started")
            os.close(writer)
            self.assertEqual(pipe.read(), "")

    def test_what_has_left_the_group_does_not_hold_the_cell(self):
        _, out, _ = self.run_cell("!setsid sleep 1000 & echo $!")
        os.kill(int(out), signal.SIGKILL)

    def test_child_killed(self):
        self.fails("import \"syscall\"\n%%\nsyscall.Kill(os.Getpid(), syscall.SIGKILL)\ntime.Sleep(time.Hour)", "Crashed", "SIGKILL")
        self.still_lives()

    def test_go_test(self):
        reply, out, _ = self.run_cell("%test\nfunc TestKept(t *testing.T) { if kept != 41 { t.Fatal(kept) } }")
        self.assertEqual(reply["status"], "ok", out)
        self.assertIn("--- PASS: TestKept", out)
        self.fails('%test\nfunc TestKept(t *testing.T) { t.Fatal("no") }', "TestFailed", "go test")

    def test_commands(self):
        self.prints("!echo shell", "shell")
        self.fails("%unknown", "UnknownCommand", "%goflags")

    def test_the_race_detector(self):
        if shutil.which("gcc") is None:
            self.skipTest("no gcc")
        race = "%goflags -race\nvar count int\n%%\nvar both sync.WaitGroup\nfor range 2 { both.Go(func() { count++ }) }\nboth.Wait()"
        reply, _, err = self.run_cell(race)
        self.assertEqual(reply["evalue"], "exit status 66", err)
        self.assertIn("WARNING: DATA RACE", err)
        self.run_cell("%goflags")
        self.still_lives()

    def test_the_race_detector_without_a_compiler(self):
        manager, client = start_new_kernel(kernel_name="go", startup_timeout=SECONDS_MAX, env={**os.environ, "CC": "no-such-gcc"})
        try:
            reply = client.execute_interactive("%goflags -race", output_hook=lambda _: None, timeout=SECONDS_MAX)["content"]
            self.assertEqual(reply["ename"], "NoCompiler")
            self.assertIn("no-such-gcc", reply["evalue"])
            self.assertIn("apt-get install gcc", reply["evalue"])
        finally:
            client.stop_channels()
            manager.shutdown_kernel()

    def test_reset_in_a_cell_that_declares(self):
        self.run_cell("%reset\nvar other = 1")
        self.fails("%%\nfmt.Println(kept)", "CompileError", "undefined: kept")
        self.prints("%%\nfmt.Println(other)", "1")

    def test_inspect_own_declaration(self):
        reply = self.client.inspect("kept", 4, reply=True, timeout=SECONDS_MAX)
        self.assertEqual(reply["content"]["data"]["text/plain"], "var kept = 41")


class KilledGo(unittest.TestCase):
    def test_a_program_ends_with_its_kernel(self):
        manager, client = start_new_kernel(kernel_name="go", startup_timeout=SECONDS_MAX)
        reader, writer = os.pipe()
        with os.fdopen(reader) as pipe:
            client.execute(f'%%\npipe, _ := os.OpenFile("/proc/{os.getpid()}/fd/{writer}", os.O_WRONLY, 0)\nfmt.Fprintln(pipe, "ready")\nfor {{}}')
            self.assertEqual(pipe.readline(), "ready\n")
            os.close(writer)
            os.kill(manager.provisioner.process.pid, signal.SIGKILL)
            # Its end: no one has the pipe any more.
            self.assertEqual(pipe.read(), "")
        client.stop_channels()
        manager.shutdown_kernel(now=True)


class Elixir(Notebook):
    kernel = "elixir"

    def setUp(self):
        self.run_cell("kept = 41")

    def still_lives(self):
        self.prints("kept + 1", "42")

    def test_error_names_the_line(self):
        self.fails("1\n\nraise ArgumentError, \"no\"", "ArgumentError", "no")
        self.fails("1 +\n)", "SyntaxError", "cell:2")
        self.still_lives()

    def test_interrupt(self):
        self.fails('IO.puts("ready"); Process.sleep(:infinity)', "Interrupted", "bindings are as before", self.manager.interrupt_kernel)
        self.still_lives()

    def test_huge_output(self):
        self.fails('for _ <- Stream.cycle([1]), do: IO.puts(String.duplicate("a", 1000))', "OutputTooLarge", "1048576 bytes")
        self.still_lives()

    def test_huge_displays(self):
        self.fails('for _ <- Stream.cycle([1]), do: Lab.html("x")', "OutputTooLarge", "1048576 bytes")
        self.fails('Lab.html(String.duplicate("a", 2_000_000))', "OutputTooLarge", "1048576 bytes")
        self.fails("Lab.html({1})", "Protocol.UndefinedError", "String.Chars")
        self.still_lives()

    def test_a_result_that_cannot_be_shown(self):
        self.run_cell("defmodule Odd, do: defstruct([:way])")
        self.run_cell('defimpl Inspect, for: Odd do\n  def inspect(%{way: :stay}, _), do: IO.puts("ready") && Process.sleep(:infinity)\n  def inspect(_, _), do: exit(:boom)\nend')
        self.fails("struct(Odd)", "exit", "boom")
        self.still_lives()
        self.fails("struct(Odd, way: :stay)", "Interrupted", "bindings are as before", self.manager.interrupt_kernel)
        self.still_lives()

    def test_many_short_lines(self):
        _, out, _ = self.run_cell("for number <- 1..50_000, do: IO.puts(number)\nnil")
        self.assertEqual(out, "".join(f"{number}\n" for number in range(1, 50_001)) + "nil")

    def test_exit_of_a_linked_process(self):
        self.fails("spawn_link(fn -> exit(:boom) end); Process.sleep(:infinity)", "Exit", "boom")
        self.still_lives()

    def test_the_session_ends_and_a_new_one_starts(self):
        self.fails("System.halt(3)", "SessionEnded", "all bindings and modules are gone")
        self.prints("1 + 1", "2")

    def test_the_beam_is_killed(self):
        _, pid, _ = self.run_cell("System.pid() |> IO.puts()")
        os.kill(int(re.search(r"\d+", pid).group()), signal.SIGKILL)
        self.fails("kept", "SessionEnded", "new session")

    def test_what_persists(self):
        self.run_cell("defmodule Kept, do: def(f, do: 1)\nalias Kept, as: K\n{:ok, agent} = Agent.start_link(fn -> 5 end)\nsend(self(), :mail)")
        self.prints("{K.f(), Agent.get(agent, & &1), receive(do: (m -> m))}", "{1, 5, :mail}")

    def test_what_cannot_be_printed_is_the_cells_error(self):
        for code in (':io.format("~s~n", [:a, 1])', ":io.put_chars(:atom)"):
            self.fails(code, "ArgumentError", "argument")
            self.still_lives()
        self.prints(":io.requests([{:put_chars, :unicode, :erlang, :exit, [:a]}, {:setopts, []}])", "{:error, {:error, :exit}}")
        self.still_lives()

    def test_standard_input_is_empty(self):
        self.prints('IO.gets("name?")', ":eof")


@pytest.mark.skipif(not evcxr().exists(), reason="no evcxr")
class Rust(Notebook):
    kernel = "rust"

    def test_variables_stay_after_a_panic(self):
        self.run_cell("let kept = 41;")
        _, _, err = self.run_cell('panic!("at the disco")')
        self.assertIn("at the disco", err)
        self.prints("kept + 1", "42")

    def test_an_error_of_the_compiler(self):
        self.fails("let number = 1;\nundefined(number)", "Error", "cannot find function `undefined`")

    def test_an_interrupt_ends_the_cells_process(self):
        self.run_cell("let gone = 1;")
        self.fails('println!("ready"); std::thread::sleep(std::time::Duration::from_secs(3600));', "Error", "terminated", self.manager.interrupt_kernel)
        self.fails("gone", "Error", "cannot find value `gone`")
        self.prints("1 + 1", "2")

    def test_evcxr_is_killed_and_a_new_one_starts(self):
        self.fails('std::process::Command::new("kill").args(["-KILL", &std::os::unix::process::parent_id().to_string()]).status().unwrap();', "KernelEnded", "All variables are gone")
        self.prints("1 + 1", "2")

    def test_the_last_lines_of_a_cell_are_the_cells(self):
        lines = "".join(f"{number}\n" for number in range(300))
        for _ in range(3):
            _, out, err = self.run_cell('for number in 0..300 { println!("{number}"); eprintln!("{number}"); };')
            self.assertEqual((out, err), (lines, lines))
        self.assertEqual(self.run_cell('for number in 0..10_000 { println!("{number}"); };')[1], "".join(f"{number}\n" for number in range(10_000)))
        # The mark comes behind it, on the same line.
        self.assertEqual(self.run_cell('print!("out"); eprint!("err");')[1:], ("out", "err"))
        self.assertEqual(self.run_cell("let silent = 1;")[1:], ("", ""))


del Notebook  # Not a test of its own.


def test_a_kernel_that_dies_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "CELL_SECONDS_MAX", SECONDS_MAX)
    with driver.Kernel("python3", tmp_path) as kernel, pytest.raises(driver.KernelFailed, match="has died"):
        kernel.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
