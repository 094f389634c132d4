"""Tells, in a checkout of its own, which steps notice a changed file. Started by tests/test_fingerprint.py:

python hashed_steps.py codes FILE...   # for each file of source or data, the steps whose code its mutation moves
python hashed_steps.py settings        # code and settings of every step of every experiment
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mutation import mutated

from robust_distillation import attacks, augmentations, data, methods, metrics, models
from robust_distillation.config import load
from robust_distillation.pipeline import step as declarations
from robust_distillation.pipeline.fingerprint import fingerprint, forget
from robust_distillation.pipeline.steps import Index, steps

PACKAGES = attacks, augmentations, data, methods, metrics, models
EXPERIMENTS = [("params.yaml", None), ("params.yaml", "tiny.yaml"), ("params.yaml", "sharded.yaml")]
EXPERIMENTS += [(str(file), None) for file in sorted(Path("experiments").glob("*.yaml"))]


def jobs() -> list[declarations.Step]:
    """Returns one job for each set of modules that a step of some experiment uses."""
    experiments = [load(*files) for files in EXPERIMENTS]
    found = {}
    for experiment in experiments:
        for job in (*steps(experiment), Index(experiment)):
            found.setdefault((job.name, *sorted(set(job.named))), job)
    return list(found.values())


def codes(known: list[declarations.Step]) -> list[tuple[str, str]]:
    """Returns name and hash of each job, and of each module that an experiment may name."""
    forget()
    declarations._code.cache_clear()
    registered = [module for package in PACKAGES for module in package.registry.modules.values()]
    return [(job.name, job.code) for job in known] + [(name, fingerprint([name])) for name in registered]


def by_file(files: list[Path]) -> dict[str, list[str]]:
    """Returns the names of the steps whose code moves with each file."""
    known = jobs()
    before, moved = codes(known), {}
    for file in files:
        content = file.read_bytes()
        file.write_bytes(mutated(file))
        pairs = zip(before, codes(known), strict=True)
        moved[str(file)] = sorted({name for (name, old), (_, new) in pairs if old != new})
        file.write_bytes(content)
    return moved


def declared() -> dict[str, list]:
    """Returns code, settings, inputs and outputs of each job of the default experiment, small and shared out."""
    found = {}
    for files in EXPERIMENTS[:3]:
        for job in steps(load(*files)):
            paths = [list(map(str, group)) for group in (job.inputs, job.outputs)]
            found[f"{files[1]} {job.command}"] = [job.code, job.settings, *paths]
    return found


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    print(json.dumps(declared() if what == "declared" else by_file(list(map(Path, names))), sort_keys=True))
