"""`lab doctor`: what is there, what is missing, and the exact fix. The standard library only."""

import shutil
import subprocess

from .gopls import gopls
from .install import PACKAGES
from .places import CACHE, DATA, PYTHON, environment, evcxr, installed, rustc_version, shares_std
from .servers import FIXES, rust_analyzer


def version(argv):
    """The first line that a program prints, or None."""
    try:
        result = subprocess.run([str(each) for each in argv], capture_output=True, text=True, timeout=60, env=environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (result.stdout or result.stderr).strip().splitlines()
    return lines[-1] if result.returncode == 0 and lines else None


def findings():
    """(what, its version or None, the fix)."""
    install = "jupyter/lab install"
    yield "Python packages as locked", "yes" if installed() else None, install
    yield "JupyterLab", version([PYTHON, "-m", "jupyterlab", "--version"]), install
    yield "Python kernel", version([PYTHON, "-c", "import ipykernel; print(ipykernel.__version__)"]), install
    go = shutil.which("go", path=environment()["PATH"])
    yield "Go toolchain", version([go, "version"]) if go else None, install
    elixir = shutil.which("elixir")
    apt = "sudo apt-get install -y --no-install-recommends " + " ".join(PACKAGES)
    yield "Elixir", version([elixir, "--version"]) if elixir else None, apt
    rustc = rustc_version()
    yield "rustc with a shared std (Debian's has none)", rustc if rustc and shares_std() else None, "install Rust from https://rustup.rs"
    yield "Rust kernel (evcxr)", str(evcxr().parent.parent.name) if evcxr().exists() else None, install
    yield "language server pylsp", version([PYTHON, "-m", "pylsp", "--version"]), install
    yield "language server rust-analyzer", version([rust_analyzer(), "--version"]) if rust_analyzer() else None, FIXES["rust-analyzer"]
    yield "language server gopls", version([gopls(), "version"]) if gopls() else None, FIXES["gopls"]
    for name in ("go", "elixir", "rust"):
        spec = DATA / "kernels" / name / "kernel.json"
        yield f"kernel specification {name}", "yes" if spec.exists() else None, install


def doctor():
    """0 if nothing is missing."""
    print(f"cache: {CACHE}")
    missing = 0
    for what, found, fix in findings():
        print(f"{'ok     ' if found else 'MISSING'}  {what}: {found or 'fix: ' + fix}")
        missing += found is None
    return 1 if missing else 0
