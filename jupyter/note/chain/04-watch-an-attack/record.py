"""Records one attack on a devnet that runs: what stood at the node's door, what the kernel counted, what the attacker told.

    make devnet ARGS="--tps 20"                     # in another terminal, as root
    python3 record.py ebpf-lab target/devnet > attack.json

Frames are taken on the fabric's side of the node's wire, so XDP has not seen them yet; of each the first bytes are kept, enough for
all headers. Times are milliseconds after the attacker's first frame.
"""

import ctypes
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

HEAD_BYTES = 66  # Ethernet, IPv4, TCP with the usual options
POLL_SECONDS = 0.02
SO_TIMESTAMPNS = 35
CLONE_NEWNET = 0x40000000
REASON = "banned_bad_signature"


def enter(namespace):
    """Moves this thread into a named network namespace."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)


def ask(path, request):
    """One question to a guard's socket."""
    with socket.socket(socket.AF_UNIX) as guard:
        guard.connect(path)
        guard.sendall(json.dumps({"request": request}).encode() + b"\n")
        return json.loads(guard.makefile().readline())


def sniff(fabric, wire, frames, ready, end):
    """Every IPv4 frame on its way to the node, with the kernel's clock."""
    enter(fabric)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        tap.bind((wire, 0))
        tap.settimeout(0.2)
        ready.set()
        while not end.is_set():
            try:
                frame, extra, _, source = tap.recvmsg(HEAD_BYTES, 64, socket.MSG_TRUNC)
            except TimeoutError:
                continue
            if source[2] == socket.PACKET_OUTGOING and frame[12:14] == b"\x08\x00":
                seconds, nanoseconds = struct.unpack("qq", extra[0][2])
                frames.append((seconds * 1000 + nanoseconds / 1e6, socket.inet_ntoa(frame[26:30]), frame.hex()))


def metric(url):
    text = urllib.request.urlopen(url + "/metrics", timeout=5).read().decode()
    return int(re.search(rf'xdp_packets_dropped_total{{reason="{REASON}"}} (\d+)', text)[1])


def settled(sample):
    return sample["dropped"], sample["metric"], [(ban["address"], ban["offence"]) for ban in sample["bans"]]


def watch(node, samples, end):
    """The guard's counter, its bans and the node's metric, whenever one of them has changed."""
    while not end.is_set():
        bans = [{name: ban[name] for name in ("address", "offence", "note", "since_unix_ms", "until_unix_ms")} for ban in ask(node["guard_socket"], "bans")["bans"]]
        found = {"dropped": ask(node["guard_socket"], "status")["dropped"][REASON], "metric": metric(node["api_url"]), "bans": bans}
        # A ban's ends are read from the kernel's own clock, in ticks: they shake by some milliseconds, which is no change.
        if not samples or settled(samples[-1][1]) != settled(found):
            samples.append((time.time() * 1000, found))
        time.sleep(POLL_SECONDS)


def main(lab, folder):
    devnet = json.loads(pathlib.Path(folder, "devnet.json").read_text())
    node = devnet["nodes"][0]
    frames, samples, ready, end = [], [], threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=sniff, args=(devnet["fabric"]["namespace"], f"v-{node['name']}", frames, ready, end)),
        threading.Thread(target=watch, args=(node, samples, end)),
    ]
    for each in threads:
        each.start()
    ready.wait(10)
    command = [lab, "attack", "bad-signature", "--target", node["name"], "--dir", folder]
    attack = subprocess.run(command, capture_output=True, text=True)
    end.set()
    for each in threads:
        each.join()
    print(attack.stderr, file=sys.stderr)
    attacker = re.search(r"as (\S+),", attack.stdout)[1]
    mine = [(at, head) for at, source, head in frames if source == attacker]
    start = mine[0][0]
    for _, sample in samples:
        for ban in sample["bans"]:
            ban["since_ms"], ban["until_ms"] = round(ban.pop("since_unix_ms") - start), round(ban.pop("until_unix_ms") - start)
    recorded = {
        "command": f"ebpf-lab attack bad-signature --target {node['name']}",
        "attacker": attacker,
        "node": {"address": node["address"], "port": node["p2p_port"]},
        "story": attack.stdout.splitlines(),
        "samples": [{"ms": round(at - start), **sample} for at, sample in samples],
        "frames": [{"ms": round(at - start, 3), "head": head} for at, head in mine],
    }
    lines = [f' "{name}": ' + ("[\n  " + ",\n  ".join(json.dumps(each) for each in value) + "\n ]" if isinstance(value, list) else json.dumps(value)) for name, value in recorded.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
