"""Compare the numbers of the working tree with those of a commit, made by both on this machine:

    python tests/same_bytes.py COMMIT [--default | --overlay FILE] [--keep FOLDER]

Both run the real Snakemake on the miniature experiment: params.yaml under the overlay TINY of tests/conftest.py. Each
side takes its own params.yaml and its own TINY, so that a key that was renamed since COMMIT stands in either spelling.
Compared are, file by file, the weights (name, dtype, shape, bytes of each tensor; metadata may differ), the curves
(metrics.jsonl, values of the commit's keys; new ones may come), the outcomes (columns, dtypes, values; new columns may
come behind), tables/main.csv (text; new columns may come behind), the other tables, structure and robustness (columns
and keys of the commit; new ones may come), and the attacked images (arrays).

Exit code: 0 the same; 1 a difference, nothing to compare, or a run that failed; 2 a wrong argument.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(tempfile.gettempdir()) / "robust-distillation-same-bytes"
COMPUTING = (
    "numpy",
    "pandas",
    "pyarrow",
    "pyautoattack",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)
COMMAND = '#!/bin/sh\nexec "{python}" -m robust_distillation.cli "$@"\n'


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def copy_commit(commit: str, folder: Path) -> None:
    """Copies the files of a commit, by way of a git worktree that is removed again."""
    with tempfile.TemporaryDirectory() as temporary:
        checkout = Path(temporary) / "checkout"
        git("worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git", "results"))
        finally:
            git("worktree", "remove", "--force", str(checkout))


def copy_working_tree(folder: Path) -> None:
    """Copies the files that git tracks or would add, with all changes that are not committed yet."""
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source = REPOSITORY / name
        if source.is_file() and not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)


def tiny_overlay(conftest: Path) -> str | None:
    """The constant TINY of a tests/conftest.py, read without importing it. None: it has none."""
    body = ast.parse(conftest.read_text()).body if conftest.is_file() else []
    named = [node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TINY"]
    return ast.literal_eval(named[0].value) if named else None


def run_experiment(folder: Path, overlay: str | None) -> None:
    """Runs Snakemake on params.yaml with the code of `folder`. Raises SystemExit where it fails."""
    command = folder / "bin/robust-distillation"  # not the installed one: that may be of another commit
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=sys.executable))
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PATH": path}
    chosen = ["--config", "experiment=params.yaml"]
    if overlay is not None:
        (folder / "overlay.yaml").write_text(overlay)
        chosen.append("overlay=overlay.yaml")
    arguments = [sys.executable, "-m", "snakemake", "--cores", "2", *chosen]
    result = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout}{result.stderr}\nThe run in {folder} failed: see above.")


def run_commit(commit: str, overlay: str | None, cache: Path) -> Path:
    """The finished run of a commit: the one in `cache`, if the same versions made it, else a new one."""
    versions = [version(package) for package in COMPUTING]
    key = hashlib.sha256(json.dumps([overlay, versions]).encode()).hexdigest()[:12]
    folder = cache / f"{commit}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            building = folder.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            copy_commit(commit, building)
            run_experiment(building, overlay)
            building.rename(folder)
    return folder


def tensors(file: Path) -> dict[str, tuple]:
    """Name, dtype, shape and bytes of each tensor of a safetensors file."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], content[start:][slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def different_tensors(old: Path, new: Path) -> str:
    before, after = tensors(old), tensors(new)
    if list(before) != list(after):
        return f"tensors {list(before)} against {list(after)}"
    return listed("tensor", [name for name in before if before[name] != after[name]], len(before))


def different_arrays(old: Path, new: Path) -> str:
    before, after = np.load(old), np.load(new)
    if before.files != after.files:
        return f"arrays {before.files} against {after.files}"

    def same(name: str) -> bool:
        one, other = before[name], after[name]
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())

    return listed("array", [name for name in before.files if not same(name)], len(before.files))


def different_outcomes(old: Path, new: Path) -> str:
    before, after = pd.read_parquet(old), pd.read_parquet(new)
    if list(before.dtypes.items()) != list(after.dtypes.items())[: len(before.columns)]:
        return f"columns {dict(before.dtypes)} against {dict(after.dtypes)}"
    return different_columns(before, after)


def different_tables(old: Path, new: Path) -> str:
    before, after = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (old, new))
    if missing := [column for column in before if column not in after]:
        return f"columns {missing} are missing"
    return different_columns(before, after)


def different_main_table(old: Path, new: Path) -> str:
    before, after = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in (old, new))
    if list(before) != list(after)[: len(before.columns)]:
        return f"columns {list(before)} against {list(after)}"
    return different_columns(before, after)


def different_columns(before: pd.DataFrame, after: pd.DataFrame) -> str:
    if len(before) != len(after):
        return f"{len(before)} rows against {len(after)}"
    return listed("column", [name for name in before if not before[name].equals(after[name])], len(before.columns))


def different_values(old: Path, new: Path) -> str:
    before, after = json.loads(old.read_bytes()), json.loads(new.read_bytes())
    return listed("key", [key for key in before if key not in after or before[key] != after[key]], len(before))


def different_curves(old: Path, new: Path) -> str:
    before, after = ([json.loads(line) for line in file.read_text().splitlines()] for file in (old, new))
    if len(before) != len(after):
        return f"{len(before)} epochs against {len(after)}"
    differing = [
        line["epoch"]
        for line, other in zip(before, after, strict=True)
        if any(key not in other or other[key] != value for key, value in line.items())
    ]
    return listed("epoch", differing, len(before))


def listed(kind: str, names: list[Any], count: int) -> str:
    return (
        f"{len(names)} of {count} {kind}s: {', '.join(map(str, names[:4]))}{' ...' * (len(names) > 4)}" if names else ""
    )


# What a file below results/EXPERIMENT is, and how two of it are compared; the first pattern that fits.
COMPARED: list[tuple[str, str, Callable[[Path, Path], str]]] = [
    ("weights", "**/*.safetensors", different_tensors),
    ("curves", "**/metrics.jsonl", different_curves),
    ("outcomes", "**/*.parquet", different_outcomes),
    ("main table", "tables/main.csv", different_main_table),
    ("other tables", "tables/*.csv", different_tables),
    ("analyses", "structure/**/*.json", different_values),
    ("analyses", "robustness/**/*.json", different_values),
    ("attacked images", "robustness/**/*.npz", different_arrays),
]


def compared_files(results: Path) -> dict[str, tuple[str, Callable[[Path, Path], str]]]:
    """Path below results/EXPERIMENT to kind and comparison of the file. Hidden folders and records are left out."""
    found: dict[str, tuple[str, Callable[[Path, Path], str]]] = {}
    for kind, pattern, comparison in COMPARED:
        for file in sorted(results.glob(pattern)):
            name = file.relative_to(results).as_posix()
            if not name.startswith(".") and not name.endswith("record.json"):
                found.setdefault(name, (kind, comparison))
    return found


def differences(old: Path, new: Path, counts: Counter[str]) -> Iterator[str]:
    """A line for each file that differs; counts what was compared by kind."""
    before, after = compared_files(old), compared_files(new)
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            yield f"{name}: made by {'the commit' if name in before else 'the working tree'} alone"
            continue
        kind, comparison = before[name]
        counts[kind] += 1
        if found := comparison(old / name, new / name):
            yield f"{name}: {found}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", metavar="COMMIT", help="what the working tree is compared with")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--default", action="store_true", help="the whole of params.yaml: some 12 minutes a side")
    which.add_argument("--overlay", type=Path, metavar="FILE", help="another overlay than TINY, for both sides")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep both runs there. The commit's is made once and used again: by default it is kept in"
        f" {CACHE}, and the working tree's is removed",
    )
    arguments = parser.parse_args()
    try:
        commit = git("rev-parse", "--verify", "--quiet", f"{arguments.commit}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        parser.error(f"{arguments.commit} is no commit of {REPOSITORY}")
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as temporary:
        new = (arguments.keep or Path(temporary)) / "working-tree"
        shutil.rmtree(new, ignore_errors=True)
        copy_working_tree(new)
        theirs = ours = None
        if arguments.overlay:
            theirs = ours = arguments.overlay.read_text()
        elif not arguments.default:
            ours = tiny_overlay(new / "tests/conftest.py")
            if ours is None:
                parser.error("tests/conftest.py has no constant TINY: name an overlay by --overlay FILE")
            committed = Path(temporary) / "conftest.py"
            with_tests = git("ls-tree", "--name-only", commit, "tests/conftest.py").strip()
            committed.write_text(git("show", f"{commit}:tests/conftest.py") if with_tests else "")
            theirs = tiny_overlay(committed) or ours
        print(f"Making the numbers of {commit[:7]}, unless they are there", flush=True)
        old = run_commit(commit, theirs, (arguments.keep or CACHE).resolve())
        print(f"Making the numbers of the working tree {REPOSITORY}", flush=True)
        run_experiment(new, ours)
        counts: Counter[str] = Counter()
        (before,), (after,) = (list((side / "results").iterdir()) for side in (old, new))
        found = list(differences(before, after, counts))
    print("Compared: " + (", ".join(f"{kind} {count}" for kind, count in counts.items()) or "nothing"))
    for line in found:
        print(f"DIFFERENT {line}")
    required = {"weights", "outcomes", "main table"}
    if missing := sorted(required - counts.keys()):
        print(f"There was nothing to compare: {', '.join(missing)}")
    elif not found:
        print(f"The same as by {commit[:7]}")
    return int(bool(found or missing))


if __name__ == "__main__":
    sys.exit(main())
