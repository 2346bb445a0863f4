"""Where things are. The standard library only: `lab install` runs before anything is installed."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
NOTE, KERNELS, LOCK = HOME / "note", HOME / "kernels", HOME / "requirements.lock"
VECTORS = HOME.parent / "docs" / "spec" / "vectors"
LANGUAGES = ("python", "rust", "go", "elixir")
KERNEL_NAMES = {"python": "python3", "rust": "rust", "go": "go", "elixir": "elixir"}
EVCXR_VERSION = "0.22.0"


def cache():
    """Outside the clone, so that a fresh one starts warm: LAB_CACHE, the system's cache if it may be written, else the user's."""
    if "LAB_CACHE" in os.environ:
        return Path(os.environ["LAB_CACHE"]).resolve()
    shared = Path("/var/cache/ebpf-blockchain/jupyter")
    if os.access(shared if shared.exists() else "/var/cache", os.W_OK):
        return shared
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ebpf-blockchain" / "jupyter"


CACHE = cache()
# One for each set of locked packages: another clone, which locks others, may run from the other one.
VENV = CACHE / f"venv-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
# Kernel specifications name files of one clone, so each clone has its own. (Not by JUPYTER_PATH: evcxr would write its own there.)
DATA = CACHE / "clones" / hashlib.sha256(str(HOME).encode()).hexdigest()[:12]
PYTHON = VENV / "bin" / "python"
# The same holds for the language servers' configuration.
SETTINGS = DATA / "config"


def installed():
    """Whether the locked packages are there, all of them."""
    return PYTHON.exists() and (VENV / "locked").exists()


def rustc_version():
    """For instance 1.95.0, or None."""
    program = shutil.which("rustc")
    if program is None:
        return None
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return words[1] if len(words) > 1 else None


def shares_std():
    """Whether the compiler brings std as a shared library, which evcxr links every cell with: rustup's do, Debian's rustc-web does not."""
    if shutil.which("rustc") is None:
        return False
    made = subprocess.run(["rustc", "--print", "target-libdir"], capture_output=True, text=True, check=False)
    return made.returncode == 0 and any(found.suffix in (".so", ".dylib", ".dll") for found in Path(made.stdout.strip()).glob("*std-*"))


def evcxr_root():
    """Keyed by what the binary depends on: another compiler makes another one."""
    return CACHE / f"evcxr-{EVCXR_VERSION}-rustc-{rustc_version()}"


def evcxr():
    return evcxr_root() / "bin" / "evcxr_jupyter"


def environment():
    """What every kernel and server is started with."""
    go = VENV / "lib"
    toolchains = sorted(go.glob("python3.*/site-packages/go/bin"))
    path = os.pathsep.join([str(VENV / "bin"), *map(str, toolchains), os.environ.get("PATH", "")])
    return {
        **os.environ,
        "PATH": path,
        "GOCACHE": str(CACHE / "go-build"),
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "GOPROXY": "off",
        # evcxr's cache of compiled dependencies.
        "XDG_CACHE_HOME": str(CACHE / "xdg"),
        "EVCXR_CONFIG_DIR": str(KERNELS / "rust"),
        "JUPYTER_CONFIG_DIR": str(CACHE / "config"),
        "JUPYTER_CONFIG_PATH": str(SETTINGS),
        "JUPYTER_DATA_DIR": str(DATA),
        "JUPYTER_RUNTIME_DIR": str(CACHE / "runtime"),
        "IPYTHONDIR": str(CACHE / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "LAB_HOME": str(HOME),
        "LAB_VECTORS": str(VECTORS),
    }
