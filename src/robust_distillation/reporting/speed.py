"""How fast this machine is: seconds of a call of a network, measured once and kept for plans to come."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.files import write_text
from robust_distillation.provenance.record import processor
from robust_distillation.reporting.cost import Work
from robust_distillation.reporting.jobs import Job

SECONDS = 20.0  # that a calibration takes, about
FEW, MANY = 8, 256  # images of the calls that are timed: these, and as many as there is time for
START = "start"  # of a job: the interpreter and its imports
IMPORTS = "import robust_distillation.training.run, robust_distillation.evaluation.attack, pandas"

Line = tuple[float, float]  # seconds of a call, and more for each image in it


class Unknown(Exception):
    """This machine was not measured on a network that is asked for."""


class Speed:
    """Of one machine, for one experiment. Read from a file of this user's; `calibrate` measures and writes it."""

    def __init__(self, experiment: Experiment, file: Path | None = None):
        self.experiment, self.file = experiment, file or _file()
        self.machine, self.at_once = _machine(experiment)
        self.shape, self.classes = experiment.info.shape, len(experiment.info.classes)

    def _key(self, network: str, kind: str) -> str:
        return f"{kind} {network} {'x'.join(map(str, self.shape))} {self.classes}"

    def _kept(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def seconds(self, jobs: dict[str, Job]) -> dict[str, float]:
        """Of each job, its start included. Raises Unknown."""
        known = self._kept().get(self.machine)
        if not isinstance(known, dict) or START not in known:
            raise Unknown

        def of(part: Work) -> float:
            line = known.get(self._key(part.network, part.kind))
            if line is None:
                raise Unknown
            return part.calls * (line[0] + line[1] * part.images)

        return {name: known[START] + sum(map(of, job.work)) for name, job in jobs.items()}

    def calibrate(self, jobs: dict[str, Job], seconds: float = SECONDS) -> None:
        """Measures what the jobs call for. Networks have random weights: only what the numbers are differs."""
        found: dict[str, Any] = {START: _start()}
        asked = sorted({(part.network, part.kind) for job in jobs.values() for part in job.work})
        from robust_distillation.compute import device_of

        device = device_of(self.experiment)
        for network, kind in asked:
            call = _call(kind, json.loads(network), self.shape, self.classes, self.experiment, device)
            found[self._key(network, kind)] = fitted(call, seconds / len(asked))
        kept = self._kept()
        known = kept.get(self.machine)
        kept[self.machine] = (known if isinstance(known, dict) else {}) | found
        write_text(self.file, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def fitted(call: Callable[[int], float], seconds: float) -> Line:
    """The line through the fastest calls on few and on many images, in about so many seconds. call: times one on so
    many images."""
    began = time.monotonic()
    call(FEW)  # what is allocated and chosen once
    few = call(FEW)
    many = 2 ** int(math.log2(max(FEW, min(MANY, FEW * seconds / (4 * few)))))
    if many == FEW:
        return 0.0, few / FEW
    large = call(many)
    while time.monotonic() - began < seconds:
        few, large = min(few, call(FEW)), min(large, call(many))
    each = max(0.0, (large - few) / (many - FEW))
    return max(0.0, few - FEW * each), each


def _call(
    kind: str, architecture: dict[str, Any], shape: tuple[int, int, int], classes: int, experiment: Experiment, device
) -> Callable[[int], float]:
    """Of a network with random weights; seconds of one call on so many images."""
    import torch
    from pyautoattack.autopgd_base import APGDAttack
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack
    from torch.nn.functional import cross_entropy

    from robust_distillation.attacks.apgd import SPELT
    from robust_distillation.attacks.core import maximise
    from robust_distillation.models.checkpoint import build_model
    from robust_distillation.models.frozen import frozen
    from robust_distillation.precision import prepared

    model = prepared(
        build_model(architecture, shape, classes).to(device), experiment.compute.precision, trained=kind == "train"
    )
    threat = experiment.threat_model.model_copy(update={"eps": 1e-4})  # in which nearly all images hold
    given = {"norm": SPELT[threat.norm], "eps": threat.eps, "n_restarts": 1, "seed": 0, "device": device}
    draws = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def ask(x, labels) -> int:
        with torch.no_grad():
            model(x)
        return 1

    def attack(x, labels) -> int:
        def objective(logits):
            return cross_entropy(logits, labels, reduction="none")

        maximise(model, x, objective, threat, steps=5, step_size=1e-5, start="zero")
        return 5

    def train(x, labels) -> int:
        model.train()
        optimizer.zero_grad()
        cross_entropy(model(x), labels).backward()
        optimizer.step()
        return 1

    def apgd(x, labels) -> int:
        APGDAttack(model, n_iter=10, loss="ce", **given).perturb(x, labels)
        return 10

    def fab(x, labels) -> int:
        FABAttack_PT(model, n_iter=5, targeted=True, n_target_classes=1, **given).perturb(x, labels)
        return 5

    def query(x, labels) -> int:
        SquareAttack(model, n_queries=50, p_init=0.8, resc_schedule=False, **given).perturb(x, labels)
        return 50

    function = {"ask": ask, "attack": attack, "train": train, "apgd": apgd, "fab": fab, "query": query}[kind]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def timed(images: int) -> float:
        x = torch.rand(images, *shape, generator=draws).to(device)
        model.eval()
        with torch.no_grad():
            labels = model(x).argmax(1)
        wait()
        began = time.perf_counter()
        if kind == "train":
            calls = function(x, labels)
        else:
            with frozen(model):
                calls = function(x, labels)
        wait()
        return (time.perf_counter() - began) / calls

    return timed


def _start() -> float:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        return time.perf_counter() - began

    return min(once(), once())  # the first one may have had to read the files from the disk


def _machine(experiment: Experiment) -> tuple[str, int]:
    """What a measurement holds for, and how many jobs run here at once."""
    import torch

    compute = experiment.compute
    if compute.device != "cpu" and torch.cuda.is_available():
        device, at_once = torch.cuda.get_device_name(0), torch.cuda.device_count() * compute.jobs_per_gpu
    else:
        device, at_once = processor(), max(1, (os.cpu_count() or 1) // compute.threads)
    return f"{device}, threads {compute.threads}, {compute.precision}, torch {version('torch')}", at_once


def _file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "robust-distillation/speed.json"
