"""`lab install`: everything that the notebooks need, once. What is there already is left alone."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv

from .gopls import NoGopls, fetch, gopls
from .places import CACHE, DATA, EVCXR_VERSION, HOME, KERNELS, LOCK, PYTHON, VENV, environment, evcxr, evcxr_root, installed, shares_std
from .servers import RUST_PACKAGES, rust_analyzer, write_servers

PACKAGES = ["elixir", "erlang-crypto", "erlang-jiffy", "erlang-public-key", "erlang-ssl", "erlang-inets"]
# Optimised a little: 5 minutes instead of 8 on two cores, and notebooks run a quarter slower; unoptimised they crawl,
# because evcxr holds rust-analyzer.
EVCXR_PROFILE = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
}


def say(text):
    print(f"lab: {text}", flush=True)


def run(argv, **options):
    subprocess.run([str(each) for each in argv], check=True, **options)


@contextlib.contextmanager
def alone():
    """One installation at a time: the clones of a machine share the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "install.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another installation")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install():
    with alone():
        install_system()
        install_python()
        install_rust()
        install_gopls()
        write_kernels()
        write_settings()
        write_servers()
        warm()
    say("installed; start with `jupyter/lab up`")


def install_system():
    """Elixir, and rust-analyzer, which is worth a completion but no failure."""
    missing = [*([] if shutil.which("elixir") else PACKAGES), *([] if rust_analyzer() else RUST_PACKAGES)]
    if not missing:
        return
    apt = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        say("some system packages are missing; `jupyter/lab doctor` says which. Install them with: sudo " + " ".join(apt))
        return
    say("installing " + " ".join(missing))
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A new machine has no lists of packages yet.
    subprocess.run(["apt-get", "update", "-q"], env=env, check=False, stdout=subprocess.DEVNULL)
    if subprocess.run(apt, env=env, check=False).returncode:
        say("apt-get failed; going on without. `jupyter/lab doctor` says what is missing")


def install_python():
    """A virtual environment of exactly the locked packages, by their hashes."""
    if installed():
        return
    say("installing the locked Python packages, with the Go toolchain among them")
    venv.create(VENV, with_pip=True, clear=True)
    run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", LOCK])
    # Last: without it nothing of this is used.
    (VENV / "locked").touch()


def install_rust():
    if evcxr().exists():
        return
    if not shutil.which("cargo"):
        say("cargo is missing; the Rust notebooks will not run. Install Rust from https://rustup.rs, then repeat")
        return
    if not shares_std():
        say("this Rust, like Debian's, has no shared std; the Rust notebooks will not run. Install Rust from https://rustup.rs, then repeat")
        return
    say("building the Rust kernel, once: about 5 minutes on two cores")
    target = CACHE / "evcxr-target"
    env = {**os.environ, **EVCXR_PROFILE, "CARGO_TARGET_DIR": str(target)}
    run(["cargo", "install", "--quiet", "--locked", "evcxr_jupyter", "--version", EVCXR_VERSION, "--root", evcxr_root()], env=env)
    # 700 MB that nobody reads again.
    shutil.rmtree(target, ignore_errors=True)


def install_gopls():
    """Worth a completion, but no failure."""
    if gopls():
        return
    say("fetching gopls")
    try:
        fetch()
    except NoGopls as error:
        say(f"no gopls: {error}. The Go kernel then completes names and packages itself; `jupyter/lab doctor` says what helps")


def write_kernels():
    """Kernel specifications of this clone."""
    # The log's warning that loopback is not encrypted would stand before every line that `lab test` prints.
    quiet = ["-f", "{connection_file}", "--IPKernelApp.log_level=ERROR"]
    # Wherever a kernel is started from, it finds the laboratory's tutor.
    found = {"PYTHONPATH": str(HOME)}
    specs = {
        "python3": {"argv": [str(PYTHON), "-m", "ipykernel_launcher", *quiet, "--ext=laboratory.tutor"], "display_name": "Python", "language": "python", "env": found},
        "go": {"argv": [str(PYTHON), str(KERNELS / "go" / "kernel.py"), *quiet], "display_name": "Go", "language": "go"},
        "elixir": {"argv": [str(PYTHON), str(KERNELS / "elixir" / "kernel.py"), *quiet], "display_name": "Elixir", "language": "elixir"},
    }
    if evcxr().exists():
        argv = [str(PYTHON), str(KERNELS / "rust" / "kernel.py"), *quiet]
        specs["rust"] = {"argv": argv, "display_name": "Rust", "language": "rust", "env": {"LAB_EVCXR": str(evcxr())}}
    for name, spec in specs.items():
        # One in the environment would be found first, and belongs to another clone, or to ipykernel.
        shutil.rmtree(VENV / "share" / "jupyter" / "kernels" / name, ignore_errors=True)
        folder = DATA / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(json.dumps({"interrupt_mode": "signal" if name == "python3" else "message", **spec}, indent=1) + "\n")


def write_settings():
    """No pop-up of news over the page, no look for updates."""
    folder = VENV / "share" / "jupyter" / "lab" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (folder / "overrides.json").write_text(json.dumps({"@jupyterlab/apputils-extension:notification": quiet}))


def warm():
    """Go's standard library with the kernel's own flags: the first cell then takes a second instead of half a minute."""
    stamp = CACHE / "go-build" / "warmed"
    program = HOME / "kernels" / "go" / "warm.go"
    digest = hashlib.sha256(program.read_bytes() + LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say("compiling Go's standard library, once")
    env = {**environment(), "CGO_ENABLED": "0"}
    go = shutil.which("go", path=env["PATH"])
    if go is None:
        sys.exit("lab: the locked packages hold no Go toolchain: remove " + str(VENV) + " and repeat")
    run([go, "build", "-trimpath", "-ldflags=-s -w", "-o", os.devnull, program], env=env, cwd=program.parent)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)
