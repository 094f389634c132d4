"""What Snakemake knows of an experiment's files, kept beside them so that DVC can version both together.

Snakemake keeps a record per output of all experiments in `.snakemake/metadata`: rule, params, code, the checksums of
its inputs, times. The name of a record is the base64 of the output's path, cut into folders that begin with @ where it
is long; all paths in it are relative to the checkout. A file without its record, or with the record of another version
of it, is made again. So the records of an experiment lie in `results/EXPERIMENT/.metadata` too:

- while that folder is there, it speaks of the files beside it, and Snakemake's own records follow it: after a clone, a
  pull, a checkout of another version;
- a run takes it away when it starts and writes it when it ends, well or not. What was killed leaves none, and DVC has
  nothing that it could version; the next start writes it.

The teacher's cache is not versioned, but its records are: they say of which teacher it was, and Snakemake asks that
even where the cache itself is missing.
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
    """Makes Snakemake's records of the experiment those that lie beside its files; without any, writes them."""
    kept = layout.metadata
    if not kept.is_dir():
        if not _running() and any(_of(layout)):
            keep(layout)
        return
    (SNAKEMAKE / "incomplete").mkdir(parents=True, exist_ok=True)  # without it Snakemake takes the records for old ones
    names = {file.relative_to(kept) for file in kept.rglob("*") if file.is_file()}
    for name in names:
        _copy(kept / name, RECORDS / name)
    for name, _ in list(_of(layout)):
        if name not in names:
            (RECORDS / name).unlink()


def forget(layout: Layout) -> None:
    """At the start of a run: from here on the files are no longer those that the folder speaks of."""
    shutil.rmtree(layout.metadata, ignore_errors=True)


def keep(layout: Layout) -> None:
    """Writes the folder: the records of all files that are there and whole, and of the cache. Complete or absent."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.root, prefix=".metadata.") as folder:
        written = Path(folder) / "written"
        written.mkdir()
        for name, output in _of(layout):
            there = output.exists() or output.is_relative_to(layout.caches)
            if there and not (SNAKEMAKE / "incomplete" / name).exists():
                _copy(RECORDS / name, written / name)
        forget(layout)
        written.rename(layout.metadata)


def _of(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """The experiment's records, as paths below `.snakemake/metadata`, and the outputs that they speak of."""
    for file in RECORDS.rglob("*"):
        if file.is_file():
            name = file.relative_to(RECORDS)
            output = Path(urlsafe_b64decode("".join(part.removeprefix("@") for part in name.parts)).decode())
            if output.is_relative_to(layout.root):
                yield name, output


def _running() -> bool:
    """Whether a run works in this folder, or was killed here and its lock not lifted."""
    return any((SNAKEMAKE / "locks").glob("*"))


def _copy(source: Path, target: Path) -> None:
    """Copies bytes, in one step, where they differ. Never a link: Snakemake writes its records in place."""
    text = source.read_bytes()
    if target.is_file() and target.read_bytes() == text:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Names may be as long as a file system takes them: a temporary one cannot be longer.
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as temporary:
        temporary.write(text)
    os.chmod(temporary.name, 0o660)  # as Snakemake's own
    os.replace(temporary.name, target)
