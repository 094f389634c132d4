"""Copies Snakemake's metadata of an experiment's files to a folder beside them, so that DVC versions both together.

Snakemake has one metadata record per output of all experiments, in `.snakemake/metadata`: rule, params, code, checksums
of inputs, times. The name of a record is the base64 of the output's path, cut into folders that begin with @ if it is
long. All paths in it are relative to the checkout. Snakemake makes a file again if its record is missing or belongs to
another version of the file. So `results/EXPERIMENT/.metadata` has a copy of the experiment's records:

- While that folder exists, it describes the files beside it, and `follow` copies it to `.snakemake/metadata`: after a
  clone, a pull, or a checkout of another version.
- A run removes the folder when it starts (`forget`) and writes it when it ends, with or without success (`keep`). A run
  that was killed leaves no folder, so DVC cannot version its files; the next start writes it.

The teacher's cache is not versioned, but its records are: Snakemake needs them to know of which teacher it was made,
even if the cache is missing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

from robust_distillation.layout import Layout

SNAKEMAKE = Path(".snakemake")
RECORDS = SNAKEMAKE / "metadata"


def follow(layout: Layout) -> None:
    """Replaces Snakemake's metadata of an experiment's files by the copy that DVC versions with the files.

    Snakemake makes a file again if its metadata (rule, settings, code, checksums of inputs) are missing or belong to
    another version of the file. So this is called before Snakemake, for example after a checkout of another version.
    Snakemake's metadata is one file per output, below .snakemake/metadata of the current folder. The copy is
    results/EXPERIMENT/.metadata. Metadata of the experiment that the copy lacks is deleted. Metadata of other
    experiments stays.

    If there is no copy, .snakemake stays as it is, and the copy is written from it by `keep`, unless Snakemake is
    running in this folder or has no metadata of the experiment.

    Args:
        layout: object that gives the paths of the experiment's files below results/EXPERIMENT, `experiment.layout`.
    """
    versioned = layout.metadata
    if not versioned.is_dir():
        if not _running() and any(_of(layout)):
            keep(layout)
        return
    (SNAKEMAKE / "incomplete").mkdir(parents=True, exist_ok=True)  # without it Snakemake thinks the records outdated
    names = {file.relative_to(versioned) for file in versioned.rglob("*") if file.is_file()}
    for name in names:
        _copy(versioned / name, RECORDS / name)
    for name, _ in list(_of(layout)):
        if name not in names:
            (RECORDS / name).unlink()


def forget(layout: Layout) -> None:
    """Removes the folder results/EXPERIMENT/.metadata, the copy of Snakemake's metadata, if it exists.

    A workflow that starts calls this, since it will change the files that the copy describes.

    Args:
        layout: object that gives the paths of the experiment's files below results/EXPERIMENT, `experiment.layout`.
    """
    shutil.rmtree(layout.metadata, ignore_errors=True)


def keep(layout: Layout) -> None:
    """Writes the copy of Snakemake's metadata of an experiment's files to results/EXPERIMENT/.metadata, at the end of a
    run of the workflow.

    Snakemake's metadata is one file per output (rule, settings, code, checksums of inputs), below .snakemake/metadata
    of the current folder. The copy lets DVC version it with the results. It has the metadata of each output that exists
    and is complete, and of each file of the teachers' cache, even if that is missing. The folder appears complete or
    not at all, and replaces an older one.

    Args:
        layout: object that gives the paths of the experiment's files below results/EXPERIMENT, `experiment.layout`.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.root, prefix=".metadata.") as folder:
        written = Path(folder) / "written"
        written.mkdir()
        for name, output in _of(layout):
            wanted = output.exists() or output.is_relative_to(layout.caches)
            if wanted and not (SNAKEMAKE / "incomplete" / name).exists():
                _copy(RECORDS / name, written / name)
        forget(layout)
        written.rename(layout.metadata)


def _of(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """Yields each of Snakemake's records of an experiment, as path below `.snakemake/metadata`, and its output."""
    for file in RECORDS.rglob("*"):
        if file.is_file():
            name = file.relative_to(RECORDS)
            output = Path(urlsafe_b64decode("".join(part.removeprefix("@") for part in name.parts)).decode())
            if output.is_relative_to(layout.root):
                yield name, output


def _running() -> bool:
    """Returns true if a run is active in this folder, or was killed and left its lock."""
    return any((SNAKEMAKE / "locks").glob("*"))


def _copy(source: Path, target: Path) -> None:
    """Copies a file atomically, if it differs. It is no link, since Snakemake writes its records in place."""
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # A record's name may be as long as the file system allows, so the temporary name is not derived from it.
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as temporary:
        temporary.write(content)
    os.chmod(temporary.name, 0o660)  # the mode of Snakemake's records
    os.replace(temporary.name, target)
