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
from robust_distillation.planning.calls import Calls, flops, training

Cost = tuple[list[Calls], dict[str, int]]  # calls of networks, and stored bytes by kind of file


@dataclass(frozen=True)
class Job:
    """One job of the plan: one command that makes some files of an experiment.

    `planning.jobs.jobs_of` makes these objects.

    Attributes:
        name: command line of the job without `robust-distillation`, for example `train-student
            wide/small/rslad/seed-0`; unique.
        step: row of the plan that counts the job, `title` of the class of its step in `pipeline.steps`, for example
            `train-student`.
        needs: names of the jobs that must be done before it starts.
        work: calls of networks: a list of `Calls` (network, kind such as `attack`, number of calls, images per call);
            empty for a job that computes nothing on images.
        bytes: bytes of the large files that the job stores, by kind: `checkpoints` or `cache`.
        devices: number of devices (GPUs) that the job uses at once.
        priority: among the jobs that are ready, those of the highest priority are started first.
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
        """Floating-point operations of the job's calls of networks."""
        return flops(self.work)


def jobs_of(experiment: Experiment) -> dict[str, Job]:
    """Returns all jobs of an experiment with cost and order, as if no file of it existed yet.

    A job is one run of a step, such as the training of one student.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        Name of each job, for example `train-student wide/small/rslad/seed-0`, to a `Job`: `needs` (names of the jobs
        that must be done before), `work` (calls of networks), `bytes` (of large files, by kind), `devices`, `priority`.
        Each job stands after the jobs that it needs.
    """
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
    """Returns the cost of a job that makes a teacher: its training and two checkpoints, or no calls and one checkpoint
    for an imported teacher.

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step train-teacher or import-teacher.
            Its attributes `experiment` and `teacher` (architecture, training settings, number of devices) are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, the bytes of the files written, by kind, here `{"checkpoints": BYTES}`.
    """
    teacher, stored = step.teacher, cost.weights(step.experiment, step.teacher.architecture)
    if teacher.imported:
        return [], {"checkpoints": stored}
    work = training(step.experiment, teacher.recipe, teacher.architecture, None, teacher.devices)
    return work, {"checkpoints": 2 * stored}


def label_cost(step: Step) -> Cost:
    """Returns the cost of a teacher's predictions on the extra training images.

    Args:
        step: the job of the workflow step label-extra. Its `experiment` and `teacher` (with the architecture) are used.

    Returns:
        The calls of networks, and an empty dict, as no large file is stored.
    """
    return cost.labelling(step.experiment, step.teacher.architecture), {}


def cache_cost(step: Step) -> Cost:
    """Returns the cost of a job that fills one cache of a teacher.

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step fill-cache or fill-records. Its
            attributes `experiment` and `cache` are used.

    Returns:
        A pair. First, a list of `Calls` of the teacher's network: kind (here `ask`, a forward pass), number of calls,
        images per call. Second, the bytes of the files written, by kind, here `{"cache": BYTES}`.
    """
    return cost.filling(step.experiment, step.cache), {"cache": cost.cache_bytes(step.experiment, step.cache)}


def candidate_cost(step: Step) -> Cost:
    """Returns the cost of the short training of one candidate (a combination of hyperparameters that the tuning tries).
    It keeps no checkpoint.

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step tune. Its attributes `experiment`,
            `recipe` (method and training settings), `architecture` and `values["teacher"]` are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, an empty dict: the bytes of the files written, by kind, are neglected.
    """
    return training(step.experiment, step.recipe, step.architecture, step.values["teacher"]), {}


def student_cost(step: Step) -> Cost:
    """Returns the cost of the training of a student, with its two checkpoints.

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step train-student. Its attributes
            `experiment`, `recipe` (method and training settings), `architecture` and `values["teacher"]` are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, the bytes of the files written, by kind, here `{"checkpoints": BYTES}`.
    """
    stored = 2 * cost.weights(step.experiment, step.architecture)
    return candidate_cost(step)[0], {"checkpoints": stored}


def attack_cost(step: Step) -> Cost:
    """Returns the cost of all attacks on one model. If several jobs share the attacks (`evaluation.jobs`), it is the
    part of one of them.

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step attack. Its attributes
            `experiment` and `model` (architecture and checkpoints of the attacked network) are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, an empty dict: the bytes of the files written, by kind, are neglected.
    """
    whole = cost.attacking(step.experiment, step.model.architecture, len(step.model.checkpoints))
    return cost.shared(whole, step.experiment.shards), {}


def structure_cost(step: Step) -> Cost:
    """Returns the cost of the structure analysis of one model (how its logits correlate between classes, and how far
    PGD moves its features).

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step structure. Its attributes
            `experiment` and `model` (with the architecture) are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, an empty dict: the bytes of the files written, by kind, are neglected.
    """
    return cost.structure(step.experiment, step.model.architecture), {}


def robustness_cost(step: Step) -> Cost:
    """Returns the cost of measuring one model's accuracy against the radius eps of the attack.

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step robustness. Its attributes
            `experiment` and `model` (with the architecture) are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, an empty dict: the bytes of the files written, by kind, are neglected.
    """
    return cost.robustness(step.experiment, step.model.architecture), {}


def transfer_cost(step: Step) -> Cost:
    """Returns the cost of the transfer of one model to another dataset, with one checkpoint (the model with a new
    linear head).

    Args:
        step: a job, an instance of a class of `pipeline.steps`, of the workflow step transfer. Its attributes
            `experiment`, `model` (with the architecture) and `values["target"]` (key under `transfer` in the experiment
            file) are used.

    Returns:
        A pair. First, a list of `Calls`: network, kind such as `attack` (a step of PGD), number of calls, images per
        call. Second, the bytes of the files written, by kind, here `{"checkpoints": BYTES}`.
    """
    architecture = step.model.architecture
    work = cost.transfer(step.experiment, architecture, step.values["target"])
    return work, {"checkpoints": cost.weights(step.experiment, architecture)}


def by_step(jobs: dict[str, Job], value: Callable[[Job], float]) -> Counter[str]:
    """Sums a value over the jobs of each step of the workflow, for the rows of the plan.

    Args:
        jobs: the jobs by name, as `jobs_of` returns them. `job.step` is the title of a job's step.
        value: function of a job that returns a number, for example `lambda job: job.flops`.

    Returns:
        The sum by title of the step, for example `{"train-student": 3e15}`, in the order of the first job of each step.
    """
    found: Counter[str] = Counter()
    for job in jobs.values():
        found[job.step] += value(job)
    return found


def written(jobs: dict[str, Job]) -> Counter[str]:
    """Returns the bytes that all jobs store together.

    Args:
        jobs: the jobs by name, as `jobs_of` returns them.

    Returns:
        Bytes by kind of file, `checkpoints` and `cache`. A kind that no job stores has no key, and its value reads as
        0.
    """
    found: Counter[str] = Counter()
    for job in jobs.values():
        found.update(job.bytes)
    return found


def makespan(jobs: dict[str, Job], seconds: dict[str, float], devices: int) -> float:
    """Simulates running all jobs on several devices, and returns the seconds until the last one is done.

    Whenever a device is free, the job of the highest priority starts, the first in `jobs` of equals, among the jobs
    whose `needs` are done and that need no more devices than are free (Graham's list scheduling; Snakemake starts jobs
    like this).

    Args:
        jobs: the jobs by name, as `jobs_of` returns them; each job's `needs` are names in this dict.
        seconds: duration of each job in seconds, by name of the job, as `Speed.seconds` returns them.
        devices: number of devices, at least 1. A job that needs more takes all of them.
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
