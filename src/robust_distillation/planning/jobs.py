"""The jobs of an experiment: what each has to compute, keeps on disk and waits for, as the workflow's rules say."""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.pipeline.step import Step, called
from robust_distillation.pipeline.steps import Index, steps
from robust_distillation.planning import cost
from robust_distillation.planning.cost import Work

Cost = tuple[list[Work], dict[str, int]]  # what a job computes, and the bytes that it stores, by what they are


@dataclass(frozen=True)
class Job:
    """A step as the plan counts it.

    Args:
        name: the command that runs it.
        step: the line of the plan that counts it.
        needs: the names of jobs that come first.
        work: what it computes.
        bytes: what it stores, by what that is.
        devices: how many it takes at once.
        priority: of jobs that are ready, those of the highest are started first.
    """

    name: str
    step: str
    needs: tuple[str, ...] = ()
    work: list[Work] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    devices: int = 1
    priority: int = 0

    @property
    def flops(self) -> float:
        return cost.flops(self.work)


def jobs_of(experiment: Experiment) -> dict[str, Job]:
    """Returns all jobs by name, from nothing, each after those that it waits for."""
    found: dict[str, Job] = {}
    makers: dict[Path, str] = {}
    for step in (*steps(experiment), Index(experiment)):
        work, stored = called(step.cost)(step) if step.cost else ([], {})
        needs = tuple(dict.fromkeys(makers[file] for file in step.inputs))
        name = step.command
        found[name] = Job(name, step.title, needs, work, stored, step.devices, step.priority)
        makers |= dict.fromkeys((*step.outputs, step.record), name)
    return found


# The cost of a job of each step that computes, as its declaration names it.


def teacher_cost(step: Step) -> Cost:
    """Returns what the training of a teacher computes, and the bytes of its checkpoints; of an import these alone."""
    teacher, stored = step.teacher, cost.weights(step.experiment, step.teacher.architecture)
    if teacher.imported:
        return [], {"checkpoints": stored}
    work = cost.training(step.experiment, teacher.recipe, teacher.architecture, None, teacher.devices)
    return work, {"checkpoints": 2 * stored}


def cache_cost(step: Step) -> Cost:
    """Returns what one kind of a teacher's answers to every view costs."""
    teacher, kind = step.values["teacher"], step.values["kind"]
    architecture = step.experiment.teachers[teacher].architecture
    return cost.filling(step.experiment, architecture), {"cache": cost.cache_bytes(step.experiment, teacher, kind)}


def candidate_cost(step: Step) -> Cost:
    """Returns what the short training of a candidate costs; it keeps no checkpoint."""
    return cost.training(step.experiment, step.recipe, step.architecture, step.values["teacher"]), {}


def student_cost(step: Step) -> Cost:
    """Returns what the training of a student costs."""
    stored = 2 * cost.weights(step.experiment, step.architecture)
    return candidate_cost(step)[0], {"checkpoints": stored}


def attack_cost(step: Step) -> Cost:
    """Returns what all attacks on one model cost, or the share of one job."""
    whole = cost.attacking(step.experiment, step.model.architecture, len(step.model.checkpoints))
    return cost.shared(whole, step.experiment.shards), {}


def structure_cost(step: Step) -> Cost:
    """Returns what the analysis of one model costs."""
    return cost.structure(step.experiment, step.model.architecture), {}


def robustness_cost(step: Step) -> Cost:
    """Returns what the curve of one model costs."""
    return cost.robustness(step.experiment, step.model.architecture), {}


def transfer_cost(step: Step) -> Cost:
    """Returns what the transfer of one model costs, and the bytes of its checkpoint with another head."""
    architecture = step.model.architecture
    work = cost.transfer(step.experiment, architecture, step.values["target"])
    return work, {"checkpoints": cost.weights(step.experiment, architecture)}


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
    order = {name: (-job.priority, place) for place, (name, job) in enumerate(jobs.items())}
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
