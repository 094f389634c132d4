"""Tell which steps run again after edits, without Snakemake. Started by test_reruns.py in a copy of the checkout:

    python rerun_steps.py < EDITS.json

Reads a list of edits: each a list of [FILE, OLD, NEW], with OLD null where NEW is the whole file. Prints a list: the
jobs of the experiment as it is, then for each edit, made alone, those that run again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robust_distillation import methods
from robust_distillation.config import load
from robust_distillation.digests import canonical
from robust_distillation.pipeline import step as declarations
from robust_distillation.pipeline.fingerprint import forget
from robust_distillation.pipeline.step import Step
from robust_distillation.pipeline.steps import Index, steps


@contextmanager
def edited(edits: list[list[str]]) -> Iterator[None]:
    """Makes the edits, and takes them back. Raises ValueError where a text to replace is not there."""
    before = {}
    try:
        for name, old, new in edits:
            file = Path(name)
            before.setdefault(file, file.read_bytes() if file.exists() else None)
            text = file.read_text() if old is not None else ""
            if old is not None and old not in text:
                raise ValueError(f"{name}: {old!r} is not there")
            file.write_text(text.replace(old, new, 1) if old is not None else new)
        yield
    finally:
        for file, content in before.items():
            file.unlink() if content is None else file.write_bytes(content)


def jobs() -> dict[str, tuple[str, Step]]:
    """Each job by its rule and wildcards: what it depends on besides the content of its inputs, and the job."""
    forget()
    declarations._code.cache_clear()
    vars(methods.registry).pop("modules", None)  # a method may be new
    experiment = load("params.yaml", "tiny.yaml")
    found = {}
    for job in (*steps(experiment), Index(experiment)):
        name = " ".join(filter(None, [job.rule_name, "/".join(job.values.values())]))
        found[name] = (canonical([job.settings, job.code, job.command, list(map(str, job.inputs))]), job)
    return found


def rerun(before: dict[str, tuple[str, Step]], after: dict[str, tuple[str, Step]]) -> list[str]:
    """The jobs that are new, that depend on something else than before, or that read what such a job makes."""
    again, remade = [], set()
    for name, (depends_on, job) in after.items():  # each after those whose files it reads
        if name not in before or before[name][0] != depends_on or remade.intersection(job.inputs):
            again.append(name)
            remade.update(job.outputs, [job.record])
    return sorted(again)


if __name__ == "__main__":
    before = jobs()
    answers = [sorted(before)]
    for edits in json.load(sys.stdin):
        with edited(edits):
            answers.append(rerun(before, jobs()))
    print(json.dumps(answers))
