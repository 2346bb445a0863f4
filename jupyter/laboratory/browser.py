"""`lab browser`: the laboratory and its site in a real browser, headless, with nothing but loopback in reach.

The tests are `browser/test_*.py`. They need Debian's Chromium (`scripts/setup.sh --browser`) and the locked packages of `browser/`, which are put
into the cache. Without Chromium they are skipped, and in CI that is a failure.
"""

import hashlib
import os
import shutil
import sys

from .install import alone, run, say
from .places import CACHE, HOME
from .suite import run_tests
from .tally import Tally

FOLDER = HOME / "browser"
LOCKED = FOLDER / "requirements.lock"
PACKAGES = CACHE / f"browser-{hashlib.sha256(LOCKED.read_bytes()).hexdigest()[:12]}"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium():
    return next((found for found in map(shutil.which, NAMES) if found), None)


def install():
    """The driver, by its hash, beside the laboratory's environment: who only reads lessons does not need it."""
    stamp = PACKAGES / "locked"
    with alone():
        if stamp.exists():
            return
        say("installing the browser's driver")
        shutil.rmtree(PACKAGES, ignore_errors=True)
        run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--target", PACKAGES, "-r", LOCKED])
        stamp.touch()


def browser(pictures, only):
    """0 if all that a reader would see is there. Pictures are what the tests saw, written to a folder."""
    tally = Tally()
    program = chromium()
    if program is None:
        tally.skipped.append("the browser: no Chromium, run `scripts/setup.sh --browser`")
        return tally.close()
    install()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), str(PACKAGES)]), "LAB_CHROMIUM": program}
    if pictures:
        env["LAB_PICTURES"] = os.path.abspath(pictures)
    run_tests(tally, FOLDER, env, ["-k", only] if only else [])
    return tally.close()
