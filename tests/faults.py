"""Kills the digits experiment at random, again and again, and compares what it ends in with a run left alone:

    python tests/faults.py [--kills 100] [--seed 0]

A round starts from nothing and is killed every few seconds until it comes to its end: a job, Snakemake or both by
kill -9, or a job by SIGTERM. Rounds follow each other until there were enough kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from conftest import REPOSITORY, environment, fresh_tree

from robust_distillation.files import sha256

CONFIG = ["--config", "experiment=params.yaml", "overlay=faults.yaml"]
KINDS = ("a job, kill -9", "Snakemake, kill -9", "both, kill -9", "a job, SIGTERM")
BETWEEN = (4.0, 14.0)  # seconds from a start to the kill; a start takes three
COMPARED = (".safetensors", ".jsonl", ".npy", ".parquet", ".csv", ".md", ".tex")


def tree_of(folder: Path) -> Path:
    tree = fresh_tree(folder)
    (tree / "faults.yaml").write_text((REPOSITORY / "tests/faults.yaml").read_text())
    return tree


def started(tree: Path) -> subprocess.Popen:
    log = (tree / "log").open("a")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *CONFIG]
    return subprocess.Popen(command, cwd=tree, env=environment(tree), stdout=log, stderr=log, start_new_session=True)


def jobs(tree: Path) -> list[int]:
    """The processes of this program that work in `tree`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(place / "cwd") == str(tree)
        except OSError:  # it ended
            continue
        if here and any(word.endswith(b"bin/robust-distillation") for word in words[:2]):
            found.append(int(place.name))
    return found


def kill(kind: str, process: subprocess.Popen, tree: Path, chance: random.Random) -> bool:
    """Whether there was somebody to kill."""
    working = jobs(tree)
    if "job" in kind and not working:
        return False
    try:
        if kind == "both, kill -9":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "Snakemake, kill -9":
            process.kill()
        else:
            os.kill(chance.choice(working), signal.SIGKILL if "-9" in kind else signal.SIGTERM)
    except ProcessLookupError:
        return False
    return True


def fingerprint(tree: Path) -> dict[str, str]:
    results = tree / "results/faults"
    return {
        str(file.relative_to(results)): sha256(file)
        for file in sorted(results.rglob("*"))
        if file.suffix in COMPARED and not any(part.startswith(".") for part in file.relative_to(results).parts)
    }


def round_of_kills(tree: Path, wanted: int, chance: random.Random) -> Counter[str]:
    """Kills until the experiment comes to its end; after `wanted` kills it is left alone."""
    done: Counter[str] = Counter()
    failures = 0
    while True:
        subprocess.run(
            [sys.executable, "-m", "snakemake", *CONFIG, "--unlock"], cwd=tree, env=environment(tree),
            capture_output=True, check=True,
        )  # fmt: skip
        process, killed = started(tree), False
        while done.total() < wanted:  # the profile keeps going where a job is killed
            try:
                process.wait(chance.uniform(*BETWEEN))
                break
            except subprocess.TimeoutExpired:
                kind = chance.choice(KINDS)
            if kill(kind, process, tree, chance):
                done[kind], killed = done[kind] + 1, True
                print(f"{done.total()}: {kind}", flush=True)
        if process.wait() == 0:
            return done
        # A job that was killed makes Snakemake end with an error; without a kill nothing may.
        failures = 0 if killed else failures + 1
        if failures > 1:
            sys.exit(f"the experiment fails without being killed, see {tree}/log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, began = random.Random(options.seed), time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    alone = tree_of(base / "alone")
    if started(alone).wait():
        sys.exit(f"the experiment fails by itself, see {alone}/log")
    expected = fingerprint(alone)
    print(f"left alone: {time.monotonic() - began:.0f} s, {len(expected)} files to compare", flush=True)
    counted: Counter[str] = Counter()
    rounds = 0
    while counted.total() < options.kills:
        tree = tree_of(base / f"round-{rounds}")
        counted += round_of_kills(tree, options.kills - counted.total(), chance)
        rounds += 1
        found = fingerprint(tree)
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if differing:
            sys.exit(f"after {counted.total()} kills these files differ, see {tree}: {', '.join(differing)}")
        print(f"round {rounds}: all {len(found)} files have the same bytes", flush=True)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items()))
    print(f"{counted.total()} kills ({kinds}) in {rounds} rounds, {time.monotonic() - began:.0f} s: ", end="")
    print(f"all survived, {len(expected)} checkpoints, curves, caches, outcomes and tables byte for byte the same")


if __name__ == "__main__":
    main()
