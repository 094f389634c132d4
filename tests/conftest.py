"""What the tests share: a small model and data, and a tiny experiment that was really run once."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from filelock import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOW = ["Snakefile", "workflow", "profiles", "src", "params.yaml", "experiments"]
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PEOPLE = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
TINY = """
name: tiny
dataset: {limit: {train: 96, validation: 40}}
seeds: [0]
training: {epochs: 3, milestones: [2], batch_size: 32, inner_attack: {steps: 2}, selection: {steps: 2, every: 1}}
tuning: {training: {epochs: 1, milestones: []}}
teachers: {wide: {width: 8, training: {epochs: 3, milestones: [2]}}}
students: {small: {width: 4}}
methods: {sat: ~, trades: ~, mart: ~, ard: ~, iad: ~, gacd: {negatives: 16, dimension: 8}}
evaluation: {images: 24, attacks: [fgsm, pgd20], block_size: 10}
structure: {images: 24}
robustness: {eps: [0.1, 0.2], images: 24, gallery: 2}
transfer: {parity: {epochs: 2, attacks: [pgd20], images: 24}}
claims:
  {rslad-sat: ~, rslad-trades: ~, rslad-ard: ~, gacd-structure: gacd < rslad on structure.correlation_distance,
   rslad-natural: rslad > natural on pgd20, parity: gacd > rslad on transfer-parity.clean}
"""  # leaves natural, rslad and gacd: no teacher, cached logits, cached features


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def environment(tree: Path) -> dict[str, str]:
    """The package of `tree`, and the commands of the Python that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(tree / "src"), "PATH": path}


def snakemake(tree: Path, *arguments: str, overlay: str | None = "tiny.yaml") -> subprocess.CompletedProcess:
    chosen = ["--config", "experiment=params.yaml", *([f"overlay={overlay}"] if overlay else [])]
    command = [sys.executable, "-m", "snakemake", *arguments, *chosen]
    return subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=600)


def planned(tree: Path, overlay: str = "tiny.yaml") -> set[str]:
    """The jobs that `snakemake -n` would run: the rule, and the values of its wildcards joined by slashes."""
    result = snakemake(tree, "-n", overlay=overlay)
    assert result.returncode == 0, result.stdout + result.stderr
    jobs, rule = set(), None
    for line in [*(result.stdout + result.stderr).splitlines(), "rule end:"]:
        if found := re.fullmatch(r"(?:rule|localrule) (\w+):", line):
            if rule:
                jobs.add(rule)
            rule = found[1]
        elif rule and (found := re.fullmatch(r"\s+wildcards: (.*)", line)):
            rule += " " + "/".join(pair.partition("=")[2] for pair in found[1].split(", "))
    return jobs - {"all"}


def fresh_tree(folder: Path) -> Path:
    """A copy of what a run needs, with the tiny overlay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WORKFLOW:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--must-run", action="store_true", help="a test that skips has failed: all it needs was installed")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs the finished run of the tiny experiment."""
    for item in items:
        if "finished" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.skipped and item.config.getoption("must_run"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium without a window, which asks nothing of the network by itself."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"pages are opened in a real browser, and {CHROMIUM} is missing: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """Returns a function made_once(name, make), which calls make(folder) in the first worker that needs it, and
    returns the same folder to all workers. Do not change the folder."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        folder = base / name
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                building = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
                make(building)
                building.rename(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def finished(made_once) -> Path:
    """A checkout in which the tiny experiment was run to its end on two cores. Do not change it: see `tree`."""

    def run(folder: Path) -> None:
        fresh_tree(folder)
        for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Before the run"]):
            subprocess.run(["git", *command], cwd=folder, env=os.environ | PEOPLE, check=True)
        result = snakemake(folder, "--cores", "2")
        assert result.returncode == 0, result.stdout + result.stderr

    return made_once("finished", run)


@pytest.fixture
def tree(finished, tmp_path) -> Path:
    """A copy of the finished tree to edit."""
    return Path(shutil.copytree(finished, tmp_path / "tree"))


def fashion_mnist_files(folder: Path) -> Path:
    """Fashion-MNIST's four files in torchvision's place and format; the first two pixels tell an image's number."""
    for part, count in (("train", 60000), ("t10k", 10000)):
        labels = np.arange(count) % 10
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
        images[:, 2:, 2:] += (20 * labels).astype(np.uint8)[:, None, None]
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"FashionMNIST/raw/{part}-{kind}-ubyte"
            path.parent.mkdir(parents=True, exist_ok=True)
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path.write_bytes(header + array.astype(np.uint8).tobytes())
    return folder
