"""The speed of this machine: seconds of a call of each network, measured once and kept for later plans."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.files import write_text
from robust_distillation.pipeline.record import processor
from robust_distillation.planning.calls import Calls
from robust_distillation.planning.jobs import Job

SECONDS = 20.0  # duration of a calibration, about
FEW = 8  # images of the smaller of two timed calls; the larger has up to 128, as time allows
IMPORTS = "import robust_distillation.training.run, robust_distillation.evaluation.attack, pandas"
OPTIMIZES = "; import torch; torch.optim.SGD([torch.zeros(1)], 1.0)"  # torch then imports its compiler
TRAINS = ("train-teacher", "train-student", "tune", "transfer")
START, TRAINING = "start", "start of a training"
STARTS = {START: IMPORTS, TRAINING: IMPORTS + OPTIMIZES}

Line = tuple[float, float]  # seconds of a call without images, and seconds for each image


class Unknown(Exception):
    """Exception, raised by `Speed.seconds` if the speed of a network of the plan was not measured on this machine."""


class Speed:
    """The speed of this machine for the networks of one experiment, read from a JSON file.

    `calibrate` measures the speed and writes the file. `seconds` then reads the file and predicts the duration of each
    job.

    Attributes:
        experiment: the parsed experiment file with all defaults filled in.
        file: JSON file of the measurements of all machines, by default robust-distillation/speed.json below the folder
            in the environment variable XDG_CACHE_HOME, or below ~/.cache if that is not set.
        device: type of the device, "cpu" or "cuda": "cuda" if there is a GPU and `compute.device` is not `cpu`.
        machine: key of this machine's measurements in the file: names of the device, threads, precision and version of
            torch, for example `NVIDIA A100, threads 1, exact, torch 2.8.0`.
        at_once: number of jobs that this machine runs at the same time: GPUs times `compute.jobs_per_gpu`, or cores
            divided by `compute.threads`; 1 if the experiment names one GPU.
        shape: (C, H, W) of the experiment's images.
        classes: number of classes.
    """

    def __init__(self, experiment: Experiment, file: Path | None = None):
        """Determines the device and the key of this machine. Measures nothing and does not read the file.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            file: JSON file of the measurements; it may be missing. None: robust-distillation/speed.json below the
                folder in the environment variable XDG_CACHE_HOME, or below ~/.cache if that is not set.
        """
        self.experiment, self.file = experiment, file or _file()
        self.device, self.machine, self.at_once = _machine(experiment)
        self.shape, self.classes = experiment.info.shape, len(experiment.info.classes)

    def _key(self, part: Calls) -> str:
        return f"{part.use} {part.kind} {part.network} {'x'.join(map(str, self.shape))} {self.classes}"

    def _kept(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def seconds(self, jobs: dict[str, Job]) -> dict[str, float]:
        """Returns the duration of each job in seconds, from the measurements in the file. The start of Python and its
        imports are included.

        Args:
            jobs: the jobs by name, as `planning.jobs.jobs_of` returns them. `job.work` (calls of networks) and
                `job.step` are used.

        Returns:
            Seconds by name of the job.

        Raises:
            Unknown: a network of the jobs was not measured on this machine, or the file is missing or damaged.
        """
        known = self._kept().get(self.machine)

        def of(part: Calls) -> float:
            once, each = known[self._key(part)]
            return part.calls * (once + each * part.images)

        try:
            starts = {name: float(known[TRAINING if job.step in TRAINS else START]) for name, job in jobs.items()}
            return {name: starts[name] + float(sum(map(of, job.work))) for name, job in jobs.items()}
        except (KeyError, TypeError, ValueError):  # never measured, or another program's file
            raise Unknown from None

    def compiles(self, jobs: dict[str, Job]) -> bool:
        """Returns True if torch.compile is used in a training among `jobs` (by name). Such trainings are faster than
        `seconds` says, since measurements are made without it.
        """
        from robust_distillation.models.precision import should_compile

        return any(
            should_compile(self.experiment.compute, job.flops, self.device)
            for job in jobs.values()
            if job.step in ("train-teacher", "train-student", "tune")
        )

    def calibrate(self, jobs: dict[str, Job], seconds: float = SECONDS) -> None:
        """Measures each kind of call that the jobs make, on networks with random weights, and writes the results to the
        file.

        Measurements of other machines and networks are kept in the file.

        Args:
            jobs: the jobs by name, as `planning.jobs.jobs_of` returns them. `job.work` (calls of networks) is used.
            seconds: duration of all measurements together, about; the default is 20 (SECONDS). The start of Python is
                measured in addition.
        """
        found: dict[str, Any] = {name: _start(program) for name, program in STARTS.items()}
        asked = {self._key(part): part for job in jobs.values() for part in job.work}
        from robust_distillation.device import select_device

        device = select_device(self.experiment.compute)
        for key, part in sorted(asked.items()):
            architecture = json.loads(part.network)
            call = _call(part.kind, part.use, architecture, self.shape, self.classes, self.experiment, device)
            found[key] = fit_line(call, seconds / len(asked))
        kept = self._kept()
        known = kept.get(self.machine)
        kept[self.machine] = (known if isinstance(known, dict) else {}) | found
        write_text(self.file, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def fit_line(call: Callable[[int, int], float], seconds: float) -> Line:
    """Fits the duration of a call of a network as a straight line in the number of images.

    Calls on 8 images and on a larger number (up to 128, as time allows) are measured several times, and the fastest
    measurements are used.

    Args:
        call: function that is called as call(images, times) with two ints and returns the seconds of `times` calls on
            `images` images. A constant part that does not depend on `times` may be included; it is removed.
        seconds: duration of all measurements, about. It is exceeded if one measurement of each kind takes longer.

    Returns:
        (seconds of a call without images, further seconds for each image), two numbers of at least 0.
    """
    began = time.monotonic()
    call(FEW, 1)  # warm-up: memory and algorithms
    rounds = 1
    while (spent := call(FEW, 2 * rounds)) < seconds / 64 and time.monotonic() - began < seconds / 4:
        rounds *= 2  # without effect if an attack has no image left
    many = 2 ** int(math.log2(max(FEW, min(16 * FEW, FEW * seconds / (4 * spent)))))
    sizes = sorted({FEW, many})
    fastest = {(images, times): math.inf for images in sizes for times in (1, 2)}
    while fastest[FEW, 1] == math.inf or time.monotonic() - began < seconds:
        for images, times in fastest:
            fastest[images, times] = min(fastest[images, times], call(images, times * rounds))
    few, *large = (max(0.0, fastest[images, 2] - fastest[images, 1]) / rounds for images in sizes)
    if not large:
        return 0.0, few / FEW
    each = max(0.0, (large[0] - few) / (many - FEW))
    return max(0.0, few - FEW * each), each


def _call(
    kind: str,
    use: str,
    architecture: dict[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    experiment: Experiment,
    device,
) -> Callable[[int, int], float]:
    """Returns a function of (images, times) that measures the seconds of `times` calls on `images` images.

    The network has random weights.
    """
    import torch
    from pyautoattack.autopgd_base import APGDAttack
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack
    from torch.nn.functional import cross_entropy

    from robust_distillation.attacks.apgd import NORM_NAMES
    from robust_distillation.attacks.core import pgd
    from robust_distillation.cuda_graph import GraphReplay
    from robust_distillation.models.checkpoint import build_model
    from robust_distillation.models.frozen import frozen
    from robust_distillation.models.precision import TRAIN, configure_precision

    model = configure_precision(build_model(architecture, shape, classes).to(device), experiment.compute.precision, use)
    threat = experiment.threat_model.model_copy(update={"eps": 1e-4})  # so small that nearly all images stay robust
    options = {"norm": NORM_NAMES[threat.norm], "eps": threat.eps, "n_restarts": 1, "seed": 0, "device": device}
    draws, replay = torch.Generator().manual_seed(0), GraphReplay() if use == TRAIN else None
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def ask(x, labels, times: int) -> None:
        with torch.no_grad():
            for _ in range(times):
                model(x)

    def objective(x, logits, labels):
        return cross_entropy(logits, labels, reduction="none")

    def attack(x, labels, times: int) -> None:
        options = {"steps": times, "step_size": 1e-5, "objective_args": (labels,), "replay": replay}
        pgd(model, x, objective, threat, **options)

    def train(x, labels, times: int) -> None:
        model.train()
        for _ in range(times):
            optimizer.zero_grad()
            cross_entropy(model(x), labels).backward()
            optimizer.step()

    def apgd(x, labels, times: int) -> None:
        APGDAttack(model, n_iter=times, loss="ce", **options).perturb(x, labels)

    def fab(x, labels, times: int) -> None:
        FABAttack_PT(model, n_iter=times, targeted=True, n_target_classes=1, **options).perturb(x, labels)

    def query(x, labels, times: int) -> None:
        SquareAttack(model, n_queries=times, p_init=0.8, resc_schedule=False, **options).perturb(x, labels)

    function = {"ask": ask, "attack": attack, "train": train, "apgd": apgd, "fab": fab, "query": query}[kind]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def timed(images: int, times: int) -> float:
        x = torch.rand(images, *shape, generator=draws).to(device)
        model.eval()
        with torch.no_grad():
            labels = model(x).argmax(1)
        with nullcontext() if kind == "train" else frozen(model):
            wait()
            began = time.perf_counter()
            function(x, labels, times)
            wait()
            return time.perf_counter() - began

    return timed


def _start(program: str) -> float:
    """Measures the seconds of the start of a job: interpreter and imports."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - began

    return min(once(), once())  # the first may read the files from the disk


def _machine(experiment: Experiment) -> tuple[str, str, int]:
    """Returns the type of the device, the key of its measurements, and the number of jobs at once."""
    import torch

    compute = experiment.compute
    if compute.device != "cpu" and torch.cuda.is_available():
        at_once = torch.cuda.device_count() * compute.jobs_per_gpu if compute.device == "auto" else 1
        kind, device = "cuda", torch.cuda.get_device_name(0)
    else:
        kind, device, at_once = "cpu", processor(), max(1, _cores() // compute.threads)
    return kind, f"{device}, threads {compute.threads}, {compute.precision}, torch {version('torch')}", at_once


def _cores() -> int:
    """Counts the cores that this process may use, as Snakemake's `cores: all` does."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "robust-distillation/speed.json"
