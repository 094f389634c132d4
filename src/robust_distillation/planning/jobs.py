"""The jobs of an experiment, as in the workflow: work, bytes on disk and order."""

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
from robust_distillation.planning.cost import Calls

Cost = tuple[list[Calls], dict[str, int]]  # calls of networks, and stored bytes by kind of file


@dataclass(frozen=True)
class Job:
    """One job of the plan.

    Attributes:
        name: the command that runs it.
        step: the row of the plan that counts it.
        needs: names of the jobs that must be done before it starts.
        work: calls of networks.
        bytes: bytes that it stores, by kind of file.
        devices: number of devices that it uses at once.
        priority: of the jobs that are ready, those of the highest priority are started first.
    """

    name: str
    step: str
    needs: tuple[str, ...] = ()
    work: list[Calls] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    devices: int = 1
    priority: int = 0

    @property
    def flops(self) -> float:
        """Floating-point operations of its work."""
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


# The cost of one job of each step that computes; the declaration of the step names the function.


def teacher_cost(step: Step) -> Cost:
    """Returns the cost of a teacher: its training and checkpoints, or the checkpoint of an imported one."""
    teacher, stored = step.teacher, cost.weights(step.experiment, step.teacher.architecture)
    if teacher.imported:
        return [], {"checkpoints": stored}
    work = cost.training(step.experiment, teacher.recipe, teacher.architecture, None, teacher.devices)
    return work, {"checkpoints": 2 * stored}


def cache_cost(step: Step) -> Cost:
    """Returns the cost of one cache of a teacher."""
    return cost.filling(step.experiment, step.cache), {"cache": cost.cache_bytes(step.experiment, step.cache)}


def candidate_cost(step: Step) -> Cost:
    """Returns the cost of the short training of a candidate, which keeps no checkpoint."""
    return cost.training(step.experiment, step.recipe, step.architecture, step.values["teacher"]), {}


def student_cost(step: Step) -> Cost:
    """Returns the cost of the training of a student."""
    stored = 2 * cost.weights(step.experiment, step.architecture)
    return candidate_cost(step)[0], {"checkpoints": stored}


def attack_cost(step: Step) -> Cost:
    """Returns the cost of all attacks on one model, or of one job's shard of them."""
    whole = cost.attacking(step.experiment, step.model.architecture, len(step.model.checkpoints))
    return cost.shared(whole, step.experiment.shards), {}


def structure_cost(step: Step) -> Cost:
    """Returns the cost of the structure analysis of one model."""
    return cost.structure(step.experiment, step.model.architecture), {}


def robustness_cost(step: Step) -> Cost:
    """Returns the cost of one model's accuracy against eps."""
    return cost.robustness(step.experiment, step.model.architecture), {}


def transfer_cost(step: Step) -> Cost:
    """Returns the cost of the transfer of one model, with the bytes of its checkpoint with another head."""
    architecture = step.model.architecture
    work = cost.transfer(step.experiment, architecture, step.values["target"])
    return work, {"checkpoints": cost.weights(step.experiment, architecture)}


def by_step(jobs: dict[str, Job], value: Callable[[Job], float]) -> Counter[str]:
    """Sums a value over the jobs of each step, in the order in which steps begin."""
    found: Counter[str] = Counter()
    for job in jobs.values():
        found[job.step] += value(job)
    return found


def written(jobs: dict[str, Job]) -> Counter[str]:
    """Sums the stored bytes of all jobs by kind of file."""
    found: Counter[str] = Counter()
    for job in jobs.values():
        found.update(job.bytes)
    return found


def makespan(jobs: dict[str, Job], seconds: dict[str, float], devices: int) -> float:
    """Simulates the jobs on `devices` devices and returns the seconds until all are done.

    Whenever devices become free, they start the first job of the highest priority among those whose predecessors are
    done and that need no more devices than are free (Graham's list scheduling, as in Snakemake).

    Args:
        jobs: the jobs by name.
        seconds: duration of each job, by name.
        devices: number of devices; a job that needs more takes all.
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
