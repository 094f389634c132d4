"""Measures the parts around a training step: the cache, the augmentation, AutoAttack and the workflow."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pyautoattack import AutoAttack
from reference_step import ReferenceStep
from steps import BATCH, CLASSES, IMAGES, SCHEME, SHAPE, images, random_cache, seconds
from torch import nn

from robust_distillation.cache.fill import BATCH as CACHE_BATCH
from robust_distillation.cache.fill import fill_cache
from robust_distillation.models.checkpoint import build_model
from robust_distillation.models.frozen import frozen
from robust_distillation.models.precision import SEARCH, configure_precision

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parent.parent


def interleaved(
    repeats: int,
    functions: dict[Any, Callable[[], object]],
    warm: bool = True,
    took: Callable[[Callable[[], object]], float] = seconds,
) -> dict[Any, float]:
    """Measures functions by turns.

    Args:
        repeats: number of calls of each.
        functions: name to function.
        warm: true to call each once before.
        took: calls a function and returns the seconds that it took.

    Returns:
        Name to the median of the seconds.
    """
    times: dict[Any, list[float]] = {name: [] for name in functions}
    for function in functions.values() if warm else ():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(took(function))
    return {name: median(measured) for name, measured in times.items()}


def filling(repeats: int) -> float:
    """Measures the CPU time of filling a cache from a ResNet-18, divided by that of its forward passes alone."""
    teacher = configure_precision(build_model({"name": "resnet"}, SHAPE, CLASSES).eval(), "fp32")
    data = images().first(CACHE_BATCH // len(SCHEME))
    positions = torch.arange(len(data) * len(SCHEME))
    x = data.views(SCHEME, positions // len(SCHEME), positions % len(SCHEME))

    def bare() -> None:
        with torch.no_grad():
            teacher(x)

    with tempfile.TemporaryDirectory() as folder:
        times = interleaved(
            repeats,
            {
                "bare": bare,
                "filling": lambda: fill_cache(Path(folder) / "logits.npy", {}, teacher, data, SCHEME, "logits"),
            },
        )
    return times["filling"] / times["bare"]


def reading(repeats: int) -> tuple[float, float, float, int]:
    """Measures reading from a cache of CIFAR-10's size, in a process of its own.

    Returns:
        CPU seconds of reading the logits of a batch; CPU seconds per GB of checking the file when a training starts; MB
        of memory that opening and reading add; size of the file in bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        random_cache(Path(folder), rows=50_000)  # as CIFAR-10's
        size = (Path(folder) / "logits.npy").stat().st_size
        code = (
            "import resource, sys, time, torch; from pathlib import Path; from statistics import median\n"
            "from robust_distillation.cache.store import CachedValues\n"
            "memory = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 1e6\n"
            "before, began = memory(), time.process_time()\n"
            "cache = CachedValues(sys.argv[1], {'of': 'the benchmark'})\n"
            "opened, times = time.process_time() - began, []\n"
            f"for _ in range(100 * {repeats}):\n"
            f"    index, views = torch.randint(50000, ({BATCH},)), torch.randint({len(SCHEME)}, ({BATCH},))\n"
            "    began = time.process_time(); cache(index, views); times.append(time.process_time() - began)\n"
            "print(median(times), opened, memory() - before)\n"
        )
        command = [sys.executable, "-c", code, f"{folder}/logits.npy"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    read, opened, added = map(float, printed.split())
    return read, opened / (size / 1e9), added, size


def augmenting(repeats: int) -> float:
    """Measures the augmentation of a batch of 128: CPU time of torchvision on PIL images, divided by this program's."""
    data, index = images(), torch.arange(128) % IMAGES
    published = ReferenceStep(build_model({"name": "convnet"}, SHAPE, CLASSES), nn.Identity(), data.images)
    times = interleaved(
        10 * repeats,
        {
            "published": lambda: published.batch(index),
            "ours": lambda: data.views(SCHEME, index, torch.randint(len(SCHEME), (len(index),))),
        },
    )
    return times["published"] / times["ours"]


# Iterations of standard AutoAttack on an image that survives, and the two smaller numbers that are run here.
# An iteration of APGD-T has the same passes through the network as one of APGD-CE.
STANDARD = {"apgd": (100 + 900, 1, 3), "fab-t": (900, 1, 2), "square": (5000, 2, 8)}


def autoattack(
    repeats: int,
    batch: int = BATCH,
    device: torch.device = CPU,
    took: Callable[[Callable[[], object]], float] = seconds,
) -> dict[str, dict[str, float]]:
    """Measures standard AutoAttack on images that survive every attack.

    The time of an iteration is the difference of the times of two numbers of iterations. `modes.py` counts which
    images fall: here all of them survive.

    Args:
        repeats: number of measurements.
        batch: number of images.
        device: device of the computation.
        took: calls a function and returns the seconds that it took.

    Returns:
        Attack to seconds per image of three sides: `plain`, pyautoattack on the network as it is; `ours`, on this
        program's fp32 network; `search`, on its bfloat16 network.
    """
    data = images().first(batch)
    x = data.floats().to(device)

    def built() -> nn.Module:
        return build_model({"name": "resnet"}, SHAPE, CLASSES).eval().to(device)

    plain = built()
    networks = {
        "plain": plain,
        "ours": configure_precision(built(), "fp32"),
        "search": configure_precision(built(), "fp32", SEARCH),
    }
    with torch.no_grad():
        labels = plain(x).argmax(1)  # all are correct, and in so small a ball most stay correct

    def run(side: str, attack: str, rounds: int) -> None:
        model = networks[side]
        with nullcontext() if model is plain else frozen(model):
            reference = AutoAttack(model, norm="Linf", eps=0.1 / 255, seed=0, device=device)
            reference.apgd.n_restarts, reference.fab.targeted = 1, True
            reference.apgd.n_iter = reference.fab.n_iter = reference.square.n_queries = rounds
            reference.fab.n_target_classes = 1
            parts = [reference.apgd, reference.fab, reference.square]
            dict(zip(STANDARD, parts, strict=True))[attack].perturb(x, labels)

    per_image = {}
    for attack, (standard, few, more) in STANDARD.items():
        runs = {(side, rounds): partial(run, side, attack, rounds) for side in networks for rounds in (few, more)}
        spent = interleaved(repeats, runs, device.type == "cuda", took)  # minutes long on a CPU
        rounds = (more - few) * len(x)
        per_image[attack] = {side: standard * (spent[side, more] - spent[side, few]) / rounds for side in networks}
    return per_image


def child_seconds() -> float:
    """Returns the CPU seconds of all child processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


SMALL = """
name: bench
seeds: [0]
dataset: {limit: {train: 64, validation: 32}}
training: {epochs: 1, milestones: [], inner_attack: {steps: 1}, selection: {steps: 1}}
teachers: {wide: {width: 2, training: {epochs: 1, milestones: []}}}
students: {small: {width: 2}}
tuning: ~
evaluation: {images: 16, attacks: [fgsm]}
structure: ~
robustness: ~
transfer: ~
claims: ~
"""


def workflow() -> tuple[int, float, float]:
    """Measures Snakemake's own time.

    Returns:
        Number of jobs of a large experiment that `snakemake -n` plans, and its CPU seconds; seconds of a start with
        nothing to do, of a small experiment that was run.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("Snakefile", "workflow", "profiles", "src", "params.yaml"):
            source = REPOSITORY / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, tree / name)
        (tree / "large.yaml").write_text(f"name: large\nseeds: {list(range(49))}\n")
        (tree / "small.yaml").write_text(SMALL)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PATH": path}

        def snakemake(overlay: str, *options: str) -> str:
            command = [sys.executable, "-m", "snakemake", *options, "--config", "experiment=params.yaml"]
            command.append(f"overlay={overlay}")
            done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
            return done.stdout + done.stderr

        before = child_seconds()
        printed = snakemake("large.yaml", "-n", "--quiet", "rules")
        planned = child_seconds() - before
        pinned = os.sched_getaffinity(0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # this run is not measured
        snakemake("small.yaml", "--cores", "2")
        os.sched_setaffinity(0, pinned)
        began = time.monotonic()
        assert "Nothing to be done" in snakemake("small.yaml", "--cores", "2")
        idle = time.monotonic() - began
    jobs = next(int(line.split()[1]) for line in printed.splitlines() if line.startswith("total"))
    return jobs, planned, idle
