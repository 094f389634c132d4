"""The jobs of an experiment: what each has to compute, keeps on disk and waits for, as the workflow's rules say."""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.planning import cost
from robust_distillation.planning.cost import Work

PRIORITIES = {
    "train-teacher": 100,
    "import-teacher": 100,
    "fill-cache": 90,
    "tune": 50,
    "choose": 50,
}  # as in the rules
TABLES = "tables, figures, tracking"


@dataclass(frozen=True)
class Job:
    """needs: the names of jobs that come first; bytes: by what they are; devices: that it takes at once."""

    name: str
    step: str
    needs: tuple[str, ...] = ()
    work: list[Work] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    devices: int = 1

    @property
    def flops(self) -> float:
        return cost.flops(self.work)


def jobs_of(experiment: Experiment) -> dict[str, Job]:
    """All of them, from nothing, by name; each after those that it waits for."""
    found: dict[str, Job] = {}

    def add(name: str, step: str, needs: tuple[str, ...] = (), **given: Any) -> str:
        found[name] = Job(name, step, needs, **given)
        return name

    data = add("data", "prepare-data")
    targets = {target: add(f"data of {target}", "prepare-data") for target in experiment.file.transfer}
    taught: dict[str, str] = {}
    for name, teacher in experiment.teachers.items():
        size = cost.weights(experiment, teacher.architecture)
        if teacher.imported:
            taught[name] = add(f"teacher {name}", "import-teacher", (data,), bytes={"checkpoints": size})
        else:
            work = cost.training(experiment, teacher.recipe, teacher.architecture, None, teacher.devices)
            written = {"checkpoints": 2 * size}
            taught[name] = add(
                f"teacher {name}", "train-teacher", (data,), work=work, bytes=written, devices=teacher.devices
            )
    for name, kind in experiment.caches:
        work = cost.filling(experiment, experiment.teachers[name].architecture)
        written = {"cache": cost.cache_bytes(experiment, name, kind)}
        add(f"{kind} of {name}", "fill-cache", (data, taught[name]), work=work, bytes=written)

    def lessons(teacher: str, method: str) -> tuple[str, ...]:
        roles, settings = experiment.roles(teacher), experiment.methods[method].settings
        asked = dict.fromkeys(taught[roles[role]] for role in settings.teachers())
        return (data, *asked, *(f"{kind} of {roles[role]}" for role, kind in settings.cached))

    chosen: dict[tuple[str, str, str], str] = {}
    for teacher, student, method in experiment.tuned:
        tried = []
        for candidate in experiment.candidates[method]:
            recipe = experiment.short_recipe(student, method, candidate)
            work = cost.training(experiment, recipe, experiment.students[student], teacher)
            name = f"{candidate} of {teacher}/{student}/{method}"
            tried.append(add(name, "tune", lessons(teacher, method), work=work))
        chosen[teacher, student, method] = add(f"choice of {teacher}/{student}/{method}", "choose", tuple(tried))

    looked: list[str] = []  # what the tables wait for
    surrogate = (taught[experiment.surrogate],) if experiment.surrogate else ()

    def looks_at(model: str, architecture: dict[str, Any], checkpoints: int) -> None:
        shards, attacking = experiment.shards, cost.attacking(experiment, architecture, checkpoints)
        parts = tuple(
            add(
                f"attack {part} of {shards} on {model}", "attack", (data, model, *surrogate),
                work=cost.shared(attacking, shards),
            )
            for part in range(1, shards + 1)
        )  # fmt: skip
        looked.extend(parts if shards == 1 else (add(f"outcomes of {model}", "attack", parts),))
        for step, part in analysing(experiment, architecture).items():
            looked.append(add(f"{step} of {model}", step, (data, model), work=part))
        for target, ready in targets.items():
            work = cost.transfer(experiment, architecture, target)
            head = {"checkpoints": cost.weights(experiment, architecture)}
            looked.append(add(f"{target} by {model}", "transfer", (ready, model), work=work, bytes=head))

    for name, teacher in experiment.teachers.items():
        looks_at(taught[name], teacher.architecture, 1)
    for run in experiment.runs:
        architecture, recipe = experiment.students[run.student], experiment.recipes[run.method, run.student]
        needs = lessons(run.teacher, run.method)
        if experiment.file.tuning:
            needs = (*needs, chosen[run.teacher, run.student, run.method])
        work = cost.training(experiment, recipe, architecture, run.teacher)
        size = {"checkpoints": 2 * cost.weights(experiment, architecture)}
        name = f"student {run.teacher}/{run.student}/{run.method}/seed-{run.seed}"
        looks_at(
            add(name, "train-student", needs, work=work, bytes=size),
            architecture,
            len(experiment.evaluation.checkpoints),
        )
    file = experiment.file
    made = ["tables", "figures", "comparisons", *(f"table of {target}" for target in targets)]
    made += ["table of structure"] * (file.structure is not None) + ["table of tuning"] * (file.tuning is not None)
    tables = tuple(add(name, TABLES, tuple(looked)) for name in made)
    add("index", TABLES, (add("tracking", TABLES, tables), add("report", TABLES, tables)))
    return found


def analysing(experiment: Experiment, architecture: dict[str, Any]) -> dict[str, list[Work]]:
    """Of each analysis of one model that the experiment asks for, but for transfers."""
    found = {}
    if experiment.file.structure:
        found["structure"] = cost.structure(experiment, architecture)
    if experiment.file.robustness:
        found["robustness"] = cost.robustness(experiment, architecture)
    return found


def by_step(jobs: dict[str, Job], value: Callable[[Job], float]) -> Counter[str]:
    """The sum of a value over the jobs of each step, in the order in which steps begin."""
    found: Counter[str] = Counter()
    for job in jobs.values():
        found[job.step] += value(job)
    return found


def written(jobs: dict[str, Job]) -> Counter[str]:
    """Bytes by what they are."""
    found: Counter[str] = Counter()
    for job in jobs.values():
        found.update(job.bytes)
    return found


def finished(jobs: dict[str, Job], seconds: dict[str, float], devices: int) -> float:
    """Seconds until all are done where so many devices take jobs: one that became free takes, of the jobs that wait for
    no other and for no more devices, one of the highest priority, and of these the first. (Graham's list scheduling;
    Snakemake does as much.)

    seconds: by job. A job that takes more devices than there are takes all.
    """
    waits = {name: len(job.needs) for name, job in jobs.items()}
    follow: dict[str, list[str]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        for need in job.needs:
            follow[need].append(name)
    order = {name: (-PRIORITIES.get(job.step, 0), place) for place, (name, job) in enumerate(jobs.items())}
    taken = {name: min(job.devices, devices) for name, job in jobs.items()}
    ready = sorted((name for name, count in waits.items() if not count), key=order.get)
    running: list[tuple[float, str]] = []
    now, free = 0.0, devices
    while ready or running:
        while (name := next((name for name in ready if taken[name] <= free), None)) is not None:
            ready.remove(name)
            free -= taken[name]
            heapq.heappush(running, (now + seconds[name], name))
        now, name = heapq.heappop(running)
        free += taken[name]
        for next_ in follow[name]:
            waits[next_] -= 1
            if not waits[next_]:
                insort(ready, next_, key=order.get)
    return now
