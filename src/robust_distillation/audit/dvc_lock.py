"""Checks files against the dvc.lock of the last git commit, the root of trust of an audit.

`dvc status` trusts a database of file times, which a careful forger can satisfy. Here every file is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_distillation.files import md5
from robust_distillation.layout import Layout
from robust_distillation.pipeline.record import git

LOCK = "dvc.lock"
CACHE = Path(".dvc/cache/files/md5")


@dataclass(frozen=True)
class CommittedLock:
    """Entry of one experiment in the dvc.lock of the last git commit.

    Attributes:
        commit: hash of the git commit, 40 digits.
        outs: path of each file or folder of results that DVC versions, to its md5, 32 hexadecimal digits. The md5 of a
            folder is followed by `.dir`, see `folder_md5`. Example: `{"results/digits/tables": "1b2...9f.dir"}`.
        params: path of each experiment file, to the values that it had when the results were made. Example:
            `{"params.yaml": {"name": "digits", "seeds": [0, 1, 2], ...}}`.
    """

    commit: str
    outs: dict[str, str]
    params: dict[str, Any]


def committed_lock(layout: Layout) -> CommittedLock | None:
    """Reads the entry of an experiment from the dvc.lock of the last git commit, in the working directory.

    The dvc.lock on disk is not read.

    Args:
        layout: the object that gives all paths below results/EXPERIMENT, `experiment.layout`. The entry is the one that
            lists `layout.data`, results/EXPERIMENT/data.json.

    Returns:
        A CommittedLock with the fields `commit` (hash, 40 digits), `outs` (path of each file or folder of results to
        its md5) and `params` (path of each experiment file to its values). None if there is no git repository or no
        commit, if the commit has no dvc.lock, or if no entry lists the file.
    """
    from ruamel.yaml import YAML

    text = git("show", f"HEAD:./{LOCK}")
    stages = (YAML(typ="safe").load(text) or {}).get("stages", {}) if text else {}
    for stage in stages.values():
        outs = {out["path"]: out["md5"] for out in stage.get("outs", []) if "md5" in out}
        if str(layout.data) in outs:
            return CommittedLock(git("rev-parse", "HEAD").strip(), outs, stage.get("params", {}))
    return None


def deviations(lock: CommittedLock) -> Iterator[tuple[str, str]]:
    """Compares the files and folders of results on disk with the committed dvc.lock.

    Args:
        lock: the entry of the experiment in the dvc.lock of the last commit, as `committed_lock` returns it. Its field
            `outs` maps the path of each file or folder of results to its md5.

    Yields:
        Path and problem of each file that differs, as in `("results/digits/data.json", "is not the file that the
        committed dvc.lock names")`. A file differs if it is missing, has another md5, or lies in a folder of results
        without being listed there. If a folder differs and the committed list of its files is neither in DVC's cache
        nor follows from git, the path is that of the folder.
    """
    for out, expected in lock.outs.items():
        path = Path(out)
        if not path.exists():
            yield out, "is missing; dvc pull brings it"
        elif not expected.endswith(".dir"):
            if not path.is_file() or md5(path) != expected:
                yield out, f"is not the file that the committed {LOCK} names"
        else:
            yield from _in_folder(path, expected)


def _in_folder(folder: Path, expected: str) -> Iterator[tuple[str, str]]:
    here = md5_of_files(folder)
    if folder_md5(here) == expected:
        return
    committed = _listed_by_dvc(expected) or _listed_by_git(folder)
    if folder_md5(committed) != expected:
        yield str(folder), f"holds other files than the committed {LOCK} says"
        return
    for name in sorted(committed | here):
        file = str(folder / name)
        if name not in here:
            yield file, "is missing; dvc pull brings it"
        elif name not in committed:
            yield file, f"is unknown to the committed {LOCK}"
        elif here[name] != committed[name]:
            yield file, f"is not the file that the committed {LOCK} names"


def _listed_by_dvc(expected: str) -> dict[str, str]:
    """Returns the result of `md5_of_files` from DVC's cache. Empty if it is not there."""
    cached = CACHE / expected[:2] / expected[2:]
    if not cached.is_file():
        return {}
    with suppress(ValueError, TypeError, KeyError):
        return {entry["relpath"]: entry["md5"] for entry in json.loads(cached.read_text(encoding="utf-8"))}
    return {}


def _listed_by_git(folder: Path) -> dict[str, str]:
    """Computes the result of `md5_of_files` for the last commit, which holds tables and metrics."""
    names = git("ls-tree", "-r", "--name-only", "-z", "HEAD", "--", str(folder)) or ""
    files = {}
    for name in filter(None, names.split("\0")):
        content = subprocess.run(["git", "show", f"HEAD:./{name}"], capture_output=True).stdout
        files[Path(name).relative_to(folder).as_posix()] = hashlib.md5(content).hexdigest()
    return files


def md5_of_files(folder: Path) -> dict[str, str]:
    """Computes the md5 of all files in a folder and its subfolders, from which DVC makes the hash of the folder.

    Args:
        folder: path of the folder.

    Returns:
        Path of each file relative to `folder`, with `/`, to its md5 of 32 hexadecimal digits. Example:
        `{"a.csv": "0cc1...", "sub/b.csv": "92eb..."}`. Empty if there is no file.
    """
    return {file.relative_to(folder).as_posix(): md5(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def folder_md5(files: dict[str, str]) -> str:
    """Computes the hash that DVC gives to a folder: the md5 of the JSON list of its files.

    Args:
        files: path of each file relative to the folder, to its md5, as `md5_of_files` returns it.

    Returns:
        32 hexadecimal digits followed by `.dir`.
    """
    entries = [{"md5": digest, "relpath": name} for name, digest in sorted(files.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"
