"""A checkout of the tiny experiment under git and DVC, and its clones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from conftest import PEOPLE, REPOSITORY, TINY, environment, planned
from ruamel.yaml import YAML

from robust_distillation.config.parsing import deep_merge


def attempt(tree: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    process_environment = (
        environment(tree) | PEOPLE | {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": "/dev/null"} | variables
    )
    return subprocess.run(command, cwd=tree, env=process_environment, capture_output=True, text=True, timeout=900)


def run(tree: Path, *command: str, **variables: str) -> str:
    result = attempt(tree, *command, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def commit(tree: Path, message: str) -> None:
    run(tree, "git", "add", "--all")
    run(tree, "git", "commit", "--quiet", "--message", message)


def checkout(finished: Path, folder: Path) -> Path:
    """A copy of the finished tree under git and DVC; its params.yaml is the tiny experiment itself."""
    tree = Path(shutil.copytree(finished, folder))
    safe = YAML(typ="safe")
    with open(tree / "params.yaml") as stream:
        experiment = deep_merge(safe.load(stream), safe.load(TINY))
    with open(tree / "params.yaml", "w") as stream:
        YAML().dump(experiment, stream)
    (tree / "tiny.yaml").unlink()
    return under_dvc(tree)


def under_dvc(tree: Path) -> Path:
    (tree / ".dvc").mkdir()
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(REPOSITORY / name, tree / name)
    run(tree, "git", "init", "--quiet")
    run(tree, "robust-distillation", "version")
    return tree


def cloned(origin: Path, folder: Path) -> Path:
    run(origin.parent, "git", "clone", "--quiet", str(origin), str(folder))
    return folder


def plan(tree: Path) -> set[str]:
    """What `snakemake -n` would run, with every rerun trigger on."""
    return planned(tree, overlay=None)
