"""A Snakemake profile for Slurm whose limits follow from the plan: what each rule's largest job may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.files import write_text
from robust_distillation.pipeline.steps import STEPS
from robust_distillation.planning.cost import weights
from robust_distillation.planning.jobs import jobs_of

HEAD = "# Written by `robust-distillation cluster`"
DEFAULT = Path("profiles/default/config.yaml")
RETRIES = 3  # for lost nodes, and for limits, which grow with every attempt

SLACK = 3  # the count of operations knows nothing of memory traffic, and the speed is a guess
START = 10  # minutes: imports over a shared file system, data, hashing
BASE = 4000  # MB: torch with CUDA, before any data
SMALL = 2000  # MB of a step that computes nothing on images


@dataclass(frozen=True)
class Cluster:
    """Properties of a Slurm cluster, from which `profile` makes a Snakemake profile.

    Attributes:
        partition: name of the partition; None for the cluster's default.
        account: name of the account to charge; None for the user's default.
        gpus: True if each job that computes on images asks for a GPU.
        tflops: sustained speed of one job, in 10^12 floating-point operations per second; time limits follow from it.
        group: number of attacks and analyses that run one after the other in one Slurm job; 1: each has its own Slurm
            job.
        jobs: largest number of jobs that are in Slurm (queued or running) at a time.
    """

    partition: str | None = None
    account: str | None = None
    gpus: bool = False
    tflops: float = 10.0
    group: int = 1
    jobs: int = 50


def largest_flops(experiment: Experiment) -> dict[str, float]:
    """Returns the number of floating-point operations of the largest job of each step of the workflow.

    A job is one run of a step, such as the training of one student. The time limits of a cluster follow from the
    returned numbers.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        Operations by name of the step, for example `{"train-student": 3e15, "attack": 2e14}`. Steps that call no
        network have no entry.
    """
    found: dict[str, float] = {}
    for job in jobs_of(experiment).values():
        if job.work:
            found[job.step] = max(found.get(job.step, 0.0), job.flops)
    return found


def minutes(flops: float, tflops: float) -> int:
    """Returns the time limit of a job in minutes: 10 + ceil(3 * flops / (tflops * 10^12) / 60).

    The 10 minutes are for imports, data and hashing. The factor 3 is for what a count of operations leaves out, such as
    memory traffic.

    Args:
        flops: number of floating-point operations of the job.
        tflops: sustained speed, in 10^12 operations per second.
    """
    return START + math.ceil(SLACK * flops / (tflops * 1e12) / 60)


def megabytes(experiment: Experiment) -> int:
    """Returns the memory limit in MB of a job that computes on images; the same for all such jobs of an experiment.

    It is 4000 + ceil((2 * pixel values of the images of all splits + 8 * bytes of the largest model) / 10^6). The 4000
    are for torch, the 8 for gradients, momenta and a saved state.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
    """
    pixels = math.prod(experiment.info.shape)
    images = sum(experiment.size(split) for split in ("train", "validation", "test"))
    models = [teacher.architecture for teacher in experiment.teachers.values()] + list(experiment.students.values())
    largest_model = max((weights(experiment, architecture) for architecture in models), default=0)
    return BASE + math.ceil((2 * images * pixels + 8 * largest_model) / 1e6)


def profile(experiment: Experiment, cluster: Cluster) -> dict[str, Any]:
    """Returns the content of a Snakemake profile that runs an experiment on Slurm.

    The options of profiles/default/config.yaml in the current folder are included, but for `cores`. The limit of time
    is `minutes` of the largest job of each step, the limit of memory is `megabytes`. Snakemake multiplies them by the
    number of the attempt if a job fails and is started again.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        cluster: properties of the cluster: `partition`, `account`, `gpus` (whether jobs ask for a GPU), `tflops` (speed
            of one job), `group` and `jobs` (numbers of jobs).

    Returns:
        Snakemake's options by name, for example `{"executor": "slurm", "jobs": 50, "set-resources": {"train_student":
        {"runtime": "attempt * 90", "mem_mb": "attempt * 5000"}}, ...}`.
    """
    memory, rules = megabytes(experiment), {}
    for step, flops in largest_flops(experiment).items():
        asked = {"runtime": f"attempt * {minutes(flops, cluster.tflops)}", "mem_mb": f"attempt * {memory}"}
        rules[step.replace("-", "_")] = asked | ({"gpu": 1} if cluster.gpus else {})
    if cluster.gpus and "train_teacher" in rules:
        rules["train_teacher"]["gpu"] = max(teacher.devices for teacher in experiment.teachers.values())
    named = {"slurm_partition": cluster.partition, "slurm_account": cluster.account}
    options = {
        "executor": "slurm",
        "jobs": cluster.jobs,
        "retries": RETRIES,
        "slurm-requeue": True,
        "latency-wait": 60,  # seconds until a node's file is seen through a shared file system
        "default-resources": {"mem_mb": SMALL, "runtime": 60} | {key: value for key, value in named.items() if value},
        "set-resources": rules,
        **_default_profile(),
    }
    if cluster.group > 1:
        # One after the other in a Slurm job: side by side, their needs would add up to more than a node has.
        options |= {
            "groups": [f"{kind.rule_name}=evaluations" for kind in STEPS if kind.grouped and kind.rule_name in rules],
            "group-components": [f"evaluations={cluster.group}"],
            "cores": experiment.compute.threads,
            "resources": [f"mem_mb={RETRIES * memory}"],
            "set-resource-scopes": ["mem_mb=local"],
        }
    return options


def _default_profile() -> dict[str, Any]:
    """Returns the options of profiles/default without `cores`: Snakemake does not read it beside another one."""
    from ruamel.yaml import YAML

    options = YAML(typ="safe").load(DEFAULT)
    return {key: value for key, value in options.items() if key != "cores"}


def write_profile(experiment: Experiment, cluster: Cluster, folder: Path) -> Path:
    """Writes a Snakemake profile, a file config.yaml, that runs an experiment on Slurm.

    The content is that of `planning.cluster.profile`: options for Slurm and the limits of time and memory of each step.
    A profile that this function wrote before is replaced.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        cluster: properties of the cluster: `partition`, `account`, `gpus` (whether jobs ask for a GPU), `tflops` (speed
            of one job), `group` and `jobs` (numbers of jobs).
        folder: folder of the profile, for example `profiles/lab`; it is created if needed.

    Returns:
        The path of the file, `folder`/config.yaml.

    Raises:
        UserError: the folder contains a config.yaml that this function did not write.
    """
    from io import StringIO

    from ruamel.yaml import YAML

    file = folder / "config.yaml"
    if file.is_file() and not file.read_text(encoding="utf-8").startswith(HEAD):
        raise UserError(f"{file}: was not written by this command. Give another folder, or remove it")
    text = StringIO()
    YAML().dump(profile(experiment, cluster), text)
    write_text(file, f"{HEAD}, for {experiment.name} at {cluster.tflops:g} TFLOP/s a job\n{text.getvalue()}")
    return file
