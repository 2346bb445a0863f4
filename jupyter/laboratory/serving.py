"""A Jupyter server for tests: on a free port of loopback, with a token of its own."""

import contextlib
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_SECONDS_MAX = 120
# How often a server that says it runs is asked whether it listens already.
ASK_AGAIN_SECONDS = 0.1
STOP_SECONDS_MAX = 30


class NotServed(Exception):
    """The server did not start; its log."""


@contextlib.contextmanager
def serving(application, folder):
    """(`127.0.0.1:PORT`, the token) of `jupyter server` or `jupyter lab` over a folder. The reader's settings are not read."""
    token, own = os.urandom(16).hex(), tempfile.mkdtemp(prefix="lab-serving-")
    argv = [sys.executable, "-m", "jupyter", application, "--ip=127.0.0.1", "--port=0", "--no-browser", f"--ServerApp.root_dir={folder}"]
    argv += ["--allow-root"] if os.geteuid() == 0 else []
    # Not among the arguments: every user of the machine may read those.
    env = {**os.environ, "JUPYTER_TOKEN": token, "JUPYTER_RUNTIME_DIR": own, "JUPYTER_CONFIG_DIR": os.path.join(own, "config")}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        port = announced(process)
        listening(port)
        yield f"127.0.0.1:{port}", token
    finally:
        # It ends its kernels and language servers before itself.
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        finally:
            process.kill()
            shutil.rmtree(own, ignore_errors=True)


def announced(process):
    """The port, from the log. What comes later in the log is thrown away: a full pipe would stop the server."""
    log, port = [], queue.Queue()

    def read():
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                port.put(int(found[1]))
                break
        for _ in process.stderr:
            pass
        port.put(None)  # It has ended.

    threading.Thread(target=read, daemon=True).start()
    try:
        found = port.get(timeout=START_SECONDS_MAX)
    except queue.Empty:
        found = None
    if found is None:
        raise NotServed("".join(log[-20:]))
    return found


def listening(port):
    """It says so before it listens."""
    end = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < end:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(ASK_AGAIN_SECONDS)
    raise NotServed(f"nobody listens on port {port}")
