"""The root of trust: the dvc.lock of the last git commit, and the files here held against it.

DVC's own status asks a database of file times, which a careful forger satisfies; here every file is hashed again.
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
class Anchor:
    """An experiment's entry in the committed dvc.lock: out to md5, and the experiment file's values then."""

    commit: str
    outs: dict[str, str]
    params: dict[str, Any]


def anchor(layout: Layout) -> Anchor | None:
    """None where no commit holds a dvc.lock with this experiment."""
    from ruamel.yaml import YAML

    text = git("show", f"HEAD:./{LOCK}")
    stages = (YAML(typ="safe").load(text) or {}).get("stages", {}) if text else {}
    for stage in stages.values():
        outs = {out["path"]: out["md5"] for out in stage.get("outs", []) if "md5" in out}
        if str(layout.data) in outs:
            return Anchor(git("rev-parse", "HEAD").strip(), outs, stage.get("params", {}))
    return None


def deviations(found: Anchor) -> Iterator[tuple[str, str]]:
    """(file or folder, what is wrong with it) for each out that is not what was committed; files are named where the
    folder's list is known, and a folder otherwise."""
    for out, expected in found.outs.items():
        path = Path(out)
        if not path.exists():
            yield out, "is missing; dvc pull brings it"
        elif not expected.endswith(".dir"):
            if not path.is_file() or md5(path) != expected:
                yield out, f"is not the file that the committed {LOCK} names"
        else:
            yield from _in_folder(path, expected)


def _in_folder(folder: Path, expected: str) -> Iterator[tuple[str, str]]:
    here = listing(folder)
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
    """As `listing`, from DVC's cache; empty where it is not there."""
    known = CACHE / expected[:2] / expected[2:]
    if not known.is_file():
        return {}
    with suppress(ValueError, TypeError, KeyError):
        return {entry["relpath"]: entry["md5"] for entry in json.loads(known.read_text(encoding="utf-8"))}
    return {}


def _listed_by_git(folder: Path) -> dict[str, str]:
    """As `listing`, of the last commit: for tables and metrics, which git keeps."""
    names = git("ls-tree", "-r", "--name-only", "-z", "HEAD", "--", str(folder)) or ""
    found = {}
    for name in filter(None, names.split("\0")):
        shown = subprocess.run(["git", "show", f"HEAD:./{name}"], capture_output=True)
        found[Path(name).relative_to(folder).as_posix()] = hashlib.md5(shown.stdout).hexdigest()
    return found


def listing(folder: Path) -> dict[str, str]:
    """File, relative to the folder, to md5."""
    return {file.relative_to(folder).as_posix(): md5(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def folder_md5(files: dict[str, str]) -> str:
    """As DVC names a folder: the md5 of the JSON list of its files."""
    entries = [{"md5": known, "relpath": name} for name, known in sorted(files.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"
