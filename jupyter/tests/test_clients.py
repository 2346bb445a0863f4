"""The clients are verifiers of their own: each gives every verdict of the vectors, follows the golden chain and refuses a forged one."""

import copy
import json
import subprocess
import sys

import pytest
from laboratory.places import HOME, VECTORS, environment

CLIENTS = HOME / "clients"
LANGUAGES = ("python", "go", "elixir")
SECONDS_MAX = 300


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Each language's command; Go's is compiled once."""
    binary = tmp_path_factory.mktemp("client") / "client"
    subprocess.run(["go", "build", "-trimpath", "-o", str(binary), "."], cwd=CLIENTS / "go", env=environment(), check=True, timeout=SECONDS_MAX)
    return {
        "python": [sys.executable, str(CLIENTS / "python" / "client.py")],
        "go": [str(binary)],
        "elixir": ["elixir", str(CLIENTS / "elixir" / "client.exs")],
    }


def run(program, command, path):
    return subprocess.run([*program, command, str(path)], capture_output=True, text=True, check=False, timeout=SECONDS_MAX, env=environment())


def verdicts(program, command, path):
    made = run(program, command, path)
    assert made.returncode == 0, made.stderr
    return [tuple(line.split("\t")) for line in made.stdout.splitlines()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_verdict_on_votes_certificates_and_evidence(programs, language):
    file = json.loads((VECTORS / "votes.json").read_text())
    lists = (("vote", "votes", "counts"), ("certificate", "certificates", "convinces"), ("evidence", "evidence", "convicts"))
    expected = [(kind, each["name"], str(each[verdict]).lower()) for kind, entries, verdict in lists for each in file[entries]]
    assert {verdict for _, _, verdict in expected} == {"true", "false"}
    assert verdicts(programs[language], "votes", VECTORS / "votes.json") == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_forged_proof_is_refused(programs, language):
    file = json.loads((VECTORS / "refused.json").read_text())
    expected = [("finality", each["name"], "false") for each in file["finality"]]
    assert expected and verdicts(programs[language], "proofs", VECTORS / "refused.json") == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_golden_chain_is_followed(programs, language):
    golden = json.loads((VECTORS / "chain.json").read_text())
    made = run(programs[language], "follow", VECTORS / "chain.json")
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.split() == [golden["genesis"]["chain_id"], "3", "10", golden["blocks"][-1]["hash"]]


def forged(golden):
    """(name, chain): the golden chain with one thing changed."""
    changes = {
        "a bit of time": lambda c: c["blocks"][4]["header"].update(time=c["blocks"][4]["header"]["time"] ^ 1),
        "a batch more": lambda c: c["blocks"][4]["body"]["batches"].append("00" * 32),
        "a block left out": lambda c: c["blocks"].pop(3),
        "a block twice": lambda c: c["blocks"].insert(3, c["blocks"][3]),
        "another weight in a later record": lambda c: c["blocks"][8]["epoch"]["validators"][0].update(weight=1000),
        "another weight at genesis": lambda c: c["genesis"]["record"]["epochs"][0]["validators"][0].update(weight=1000),
        "another balance at genesis": lambda c: c["genesis"]["record"]["accounts"][0].__setitem__(1, 1),
    }
    for name, change in changes.items():
        chain = copy.deepcopy(golden)
        change(chain)
        yield name, chain


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_forged_chain_is_refused(programs, language, tmp_path):
    golden = json.loads((VECTORS / "chain.json").read_text())
    for name, chain in forged(golden):
        path = tmp_path / "chain.json"
        path.write_text(json.dumps(chain))
        made = run(programs[language], "follow", path)
        assert (made.returncode, made.stdout[:8]) == (1, "refused:"), f"{name}: {made.stdout}{made.stderr}"
