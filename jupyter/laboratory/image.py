"""`lab image`: builds the image of `docker/` with buildah and runs lessons in it, without a Docker engine. Needs root, buildah and mmdebstrap."""

import json
import os
import shutil
import subprocess
import sys

from .install import run, say
from .places import CACHE, HOME

ROOT = HOME.parent
BASE, IMAGE = "localhost/lab-base", "localhost/ebpf-blockchain-lab"
STORE = CACHE / "image"
# The host's certificates: a network may have an authority of its own.
ISOLATION = ("--isolation", "chroot", "--network", "host", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro")
# What is executed inside, as uid 1000: every kernel, and the chain.
LESSONS = ("crypto/01", "chain/01")


def buildah(*arguments, **options):
    store = ["--root", str(STORE / "root"), "--runroot", str(STORE / "run"), "--storage-driver", "vfs"]
    return subprocess.run(["buildah", *store, *map(str, arguments)], check=True, **options)


def image(base, keep):
    missing = [name for name in ("buildah", "mmdebstrap") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        sys.exit("lab: building an image needs root and: sudo apt-get install -y buildah mmdebstrap")
    STORE.mkdir(parents=True, exist_ok=True)
    try:
        build(base)
        try_it()
    finally:
        if not keep:
            # Files of the container's root that are nobody's any more.
            shutil.rmtree(STORE, ignore_errors=True)
    return 0


def build(base):
    if base is None:
        say("making a Debian 12 to build on")
        archive = STORE / "base.tar"
        run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "bookworm", archive])
        container = buildah("from", "scratch", capture_output=True, text=True).stdout.strip()
        buildah("add", "--quiet", container, archive, "/", stdout=subprocess.DEVNULL)
        buildah("commit", "--quiet", "--rm", container, BASE, stdout=subprocess.DEVNULL)
        archive.unlink()
    ignore = HOME / "docker" / "Dockerfile.dockerignore"
    buildah("bud", *ISOLATION, "--format", "docker", "--build-arg", f"BASE={base or BASE}", "--ignorefile", ignore, "-f", HOME / "docker" / "Dockerfile", "-t", IMAGE, ROOT)


def try_it():
    described = json.loads(buildah("inspect", "--type", "image", IMAGE, capture_output=True, text=True).stdout)
    config = described["Docker"]["config"]
    if config["User"].split(":")[0] != "1000" or not config.get("Healthcheck"):
        sys.exit("lab: the image runs as root or has no health check")
    container = buildah("from", IMAGE, capture_output=True, text=True).stdout.strip()
    try:
        for lesson in LESSONS:
            buildah("run", *ISOLATION, container, "--", "jupyter/lab", "test", "--lesson", lesson)
    finally:
        buildah("rm", container, stdout=subprocess.DEVNULL)
    say(f"{IMAGE} was built, and {', '.join(LESSONS)} ran in it as uid 1000")
