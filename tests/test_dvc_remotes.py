"""Remotes that need a server, artefacts of over 100 MB, runs in a folder of their own: slow, so on demand."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import fresh_tree
from versioned import attempt, checkout, cloned, commit, plan, run, under_dvc

pytestmark = pytest.mark.services

SSHD = Path("/usr/sbin/sshd")
KEYS = {"AWS_ACCESS_KEY_ID": "dvc", "AWS_SECRET_ACCESS_KEY": "right", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def origin(finished, tmp_path_factory) -> Path:
    tree = checkout(finished, tmp_path_factory.mktemp("versioned") / "origin")
    run(tree, "dvc", "repro", "tiny")
    commit(tree, "The first run")
    return tree


@pytest.fixture
def tree(origin, tmp_path) -> Path:
    return Path(shutil.copytree(origin, tmp_path / "tree"))


def wait_for(process: subprocess.Popen, *ports: int) -> None:
    for _ in range(300):
        assert process.poll() is None, "the server stopped"
        if all(_answers(port) for port in ports):
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing answers on {ports}")


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def sshd(tmp_path):
    """A real server on loopback that takes one key. Yields its port and the key's file."""
    folder = tmp_path / "ssh"
    folder.mkdir()
    for name in ("host", "person", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "person.pub", folder / "authorized")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it
    port = 12222
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "UsePAM no\nSubsystem sftp internal-sftp\n"
    )
    with subprocess.Popen([str(SSHD), "-D", "-f", str(folder / "config"), "-E", str(folder / "log")]) as process:
        try:
            wait_for(process, port)
            yield port, folder
        finally:
            stop(process)


@pytest.fixture
def s3(tmp_path):
    """A real server on loopback. Yields its address."""
    (tmp_path / "s3").mkdir()
    keys = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "dvc", "credentials": keys, "actions": actions}]}
    (tmp_path / "s3.json").write_text(json.dumps(identities))
    command = ["weed", "server", f"-dir={tmp_path}/s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.port=18333"]
    command += [f"-s3.config={tmp_path}/s3.json", "-master.volumeSizeLimitMB=64", "-volume.max=16"]
    command += ["-master.port=19333", "-volume.port=18080", "-filer.port=18888"]
    with (
        open(tmp_path / "s3.log", "w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_for(process, 18333, 18080, 18888)
            yield "http://127.0.0.1:18333"
        finally:
            stop(process)


def assert_pulls_into_an_empty_clone(tree: Path, folder: Path, **variables: str) -> None:
    clone = cloned(tree, folder)
    assert not (clone / ".dvc/cache").exists()
    run(clone, "dvc", "pull", **variables)
    assert plan(clone) == set()


@pytest.mark.skipif(not SSHD.exists(), reason="needs Debian's openssh-server")
def test_ssh(tree, sshd, tmp_path):
    port, folder = sshd
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    run(tree, "dvc", "remote", "add", "--default", "server", f"ssh://{user}@127.0.0.1:{port}{folder}/store")
    run(tree, "dvc", "remote", "modify", "server", "keyfile", str(folder / "person"))
    commit(tree, "A server")
    run(tree, "dvc", "push")
    assert any((folder / "store").rglob("*.dir"))
    assert_pulls_into_an_empty_clone(tree, tmp_path / "clone")

    stranger = cloned(tree, tmp_path / "stranger")
    run(stranger, "dvc", "remote", "modify", "--local", "server", "keyfile", str(folder / "stranger"))
    refused = attempt(stranger, "dvc", "pull", SSH_AUTH_SOCK="", HOME=str(tmp_path))
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr
    assert not (stranger / "results/tiny/students").exists()


def test_s3(tree, s3, tmp_path):
    for _ in range(50):  # the port answers before the server takes buckets
        made = attempt(
            tree, "python", "-c",
            f"import s3fs; s3fs.S3FileSystem(endpoint_url={s3!r}).mkdir('results')", **KEYS,
        )  # fmt: skip
        if made.returncode == 0:
            break
        time.sleep(1)
    assert made.returncode == 0, made.stderr
    run(tree, "dvc", "remote", "add", "--default", "bucket", "s3://results/store")
    run(tree, "dvc", "remote", "modify", "bucket", "endpointurl", s3)
    commit(tree, "A bucket")
    run(tree, "dvc", "push", **KEYS)
    assert_pulls_into_an_empty_clone(tree, tmp_path / "clone", **KEYS)

    stranger = cloned(tree, tmp_path / "stranger")
    refused = attempt(stranger, "dvc", "pull", **(KEYS | {"AWS_SECRET_ACCESS_KEY": "wrong"}))
    assert refused.returncode != 0
    assert re.search("Forbidden|denied|SignatureDoesNotMatch|signature", refused.stderr, re.IGNORECASE)
    assert not (stranger / "results/tiny/students").exists()


def test_exp_run_in_a_folder_of_its_own_runs_only_what_it_touches(tree):
    """The cache is not DVC's: it is named to be copied."""
    log = run(
        tree, "dvc", "exp", "run", "--temp", "--copy-paths", "results/tiny/cache",
        "--name", "half", "--set-param", "methods.rslad.alpha=0.5", PYTHONPATH="",
    )  # fmt: skip
    assert "exps" in re.search(r"Working directory: (\S+)", log)[1]
    assert re.findall(r"rule (fill_cache|train_\w+|prepare_\w+):", log) == ["train_student"]
    assert set(re.findall(r"trained=(\S+)", log)) == {"students/wide/small/rslad/seed-0"}
    assert "half" in run(tree, "dvc", "exp", "show", "--csv")
    assert plan(tree) == set()


def test_artefacts_of_over_100_mb(tmp_path):
    tree = fresh_tree(tmp_path / "tree")
    (tree / "tiny.yaml").unlink()
    (tree / "params.yaml").write_text("""
name: tiny
protocol: controlled
dataset: {name: digits, padding: 1, limit: {train: 8, validation: 4}}
threat_model: {norm: linf, eps: 0.15}
seeds: [0]
training: {epochs: 1, batch_size: 8, learning_rate: 0.1, milestones: [], inner_attack: {steps: 1, step_size: 0.05}}
students: {large: {architecture: convnet, width: 800}}
methods: {natural: {}}
evaluation: {images: 4, attacks: [fgsm], checkpoints: [last]}
""")
    tree = under_dvc(tree)
    run(tree, "dvc", "repro")
    large = "results/tiny/students/none/large/natural/seed-0/last.safetensors"
    assert (tree / large).stat().st_size > 100e6
    commit(tree, "Large")
    run(tree, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    commit(tree, "A store")
    run(tree, "dvc", "push")
    clone = cloned(tree, tmp_path / "clone")
    run(clone, "dvc", "pull")
    (clone / large).touch()
    assert plan(clone) == set()
