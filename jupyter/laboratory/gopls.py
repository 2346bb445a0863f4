"""gopls of Debian's next stable suite, unpacked into the cache: the one that runs here is too old for the pinned Go, and none is a Python package.

apt fetches the one package with lists, cache and state of its own, from the mirror that this system uses, and checks the suite's signature;
nothing of the system changes and no root is needed. The standard library only.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .places import CACHE, environment

# Its gopls 0.16 needs no more than a C library of 2021.
SUITE = "trixie"
UNPACKED = CACHE / f"gopls-{SUITE}"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FETCH_SECONDS_MAX = 300


class NoGopls(Exception):
    """Why it cannot be fetched."""


def gopls():
    """The reader's own, else the one of the cache, else None."""
    found = shutil.which("gopls", path=environment()["PATH"])
    cached = UNPACKED / "usr" / "bin" / "gopls"
    return found or (str(cached) if cached.exists() else None)


def mirror():
    """Where this system gets Debian's packages from."""
    # Not `indextargets`: it knows only lists that were fetched, and an image has thrown them away.
    asked = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True, check=True).stdout
    found = next((uri for uri in re.findall(r"^'(\S+)/dists/", asked, re.M) if uri.endswith("/debian")), None)
    if found is None:
        raise NoGopls("apt knows no mirror of Debian")
    return found


def fetch():
    """Unpacks it into the cache, once."""
    if not all(map(shutil.which, ("apt-get", "dpkg-deb"))) or not KEYRING.exists():
        raise NoGopls("this is no Debian")
    with tempfile.TemporaryDirectory(prefix="lab-gopls-", dir=CACHE) as folder:
        work = Path(folder)
        for each in ("lists/partial", "cache/archives/partial", "unpacked"):
            (work / each).mkdir(parents=True)
        try:
            (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main\n")
            for command in (["update"], ["download", "gopls"]):
                apt(work, command)
            package = next(work.glob("gopls_*.deb"))
            subprocess.run(["dpkg-deb", "-x", package, work / "unpacked"], check=True, timeout=FETCH_SECONDS_MAX)
        except (OSError, StopIteration, subprocess.SubprocessError) as error:
            raise NoGopls(str(error)) from error
        shutil.rmtree(UNPACKED, ignore_errors=True)
        # Within the cache, so at once: what is there is whole.
        (work / "unpacked").rename(UNPACKED)


def apt(work, command):
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": work / "cache",
        "APT::Default-Release": "",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "APT::Update::Error-Mode": "any",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    made = subprocess.run(["apt-get", "-qq", *options, *command], cwd=work, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, timeout=FETCH_SECONDS_MAX, capture_output=True, text=True, check=False)
    if made.returncode:
        raise NoGopls(made.stderr.strip().splitlines()[-1] if made.stderr.strip() else f"apt-get {command[0]} failed")
