"""Training steps: the published one and ours, in one process, one after the other."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from reference_step import ReferenceStep
from torch.profiler import ProfilerActivity, profile

from robust_distillation.cache.store import CachedValues, Writer
from robust_distillation.data import info
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme
from robust_distillation.device import to_device
from robust_distillation.methods import TEACHER
from robust_distillation.methods.rslad import RSLAD
from robust_distillation.models.checkpoint import build_model
from robust_distillation.models.precision import TRAIN, configure_precision
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.batches import Batch
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.trainer import Trainer

SHAPE, CLASSES, BATCH, IMAGES = (3, 32, 32), 10, 32, 256
SCHEME = ViewScheme(4, True)
THREAT = ThreatModel(norm="linf", eps=8 / 255)
TEACHERS = {
    "WRN-34-10": {"name": "wide_resnet", "depth": 34, "width": 10},
    "WRN-70-16": {"name": "wide_resnet", "depth": 70, "width": 16},
}
STUDENTS = {"ResNet-18": {"name": "resnet"}, "MobileNetV2": {"name": "mobilenet_v2"}}
OURS = {"ResNet-18": ("exact", "fp32", "bf16-inner", "bf16"), "MobileNetV2": ("exact", "fp32", "bf16")}


def images() -> Dataset:
    """Made up: what is in an image costs nothing."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, *SHAPE), generator=draws, dtype=torch.uint8)
    return Dataset(pixels, torch.arange(IMAGES) % CLASSES, info("cifar10"))


def filled(folder: Path, rows: int = IMAGES, width: int = CLASSES) -> CachedValues:
    """A whole cache of made-up logits, written and read as any."""
    key, batch = {"of": "the benchmark"}, 4096
    writer = Writer(folder / "logits.npy", key, (rows, len(SCHEME), width), "float32", batch)
    draws = torch.Generator().manual_seed(1)
    for part in torch.arange(rows * len(SCHEME)).split(batch):
        writer.add(3 * torch.randn(len(part), width, generator=draws))
    writer.finish()
    writer.scratch.unlink()
    return CachedValues(folder / "logits.npy", key)


class OurStep:
    def __init__(self, student: str, precision: str, data: Dataset, cache: CachedValues, compiled: bool):
        model = build_model(STUDENTS[student], SHAPE, CLASSES).to(data.images.device)
        model = configure_precision(model, precision, TRAIN, compiled=compiled)
        method = RSLAD()
        settings = Training.model_validate(RSLAD.official(CLASSES, "resnet").training)
        self.trainer = Trainer(model, method, settings, THREAT, 0, teachers={TEACHER: Teacher(logits=cache)})
        self.data, self.steps = data, 0

    def __call__(self, index: torch.Tensor) -> None:
        self.trainer.student.train()
        views = torch.randint(len(SCHEME), (len(index),))
        there, chosen = (to_device(numbers, self.data.images.device) for numbers in (index, views))
        x = self.data.views(SCHEME, there, chosen)
        self.trainer.step(Batch(x, self.data.labels[there], index, views, 1, self.steps))
        self.steps += 1


PARTS = {
    "convolutions, forward": lambda name: name == "aten::mkldnn_convolution",
    "convolutions, backward": lambda name: name == "aten::convolution_backward",
    "batch norm, ReLU and sums, compiled": lambda name: "CompiledFxGraph" in name,
}
REST = "all else"


def parts_of(step: OurStep, index: torch.Tensor) -> dict[str, float]:
    """Shares of one step's time by torch's profiler. A convolution's holds bringing its weights into oneDNN's order."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step(index)
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(spent.values())
    shares = {part: sum(t for name, t in spent.items() if of(name)) / total for part, of in PARTS.items()}
    return shares | {REST: 1 - sum(shares.values())}


def seconds(function: Callable, *arguments) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


@dataclass
class Measured:
    """Medians of CPU seconds for a batch. asked: a teacher's forward pass; published: the published step but for that;
    ours: by student and precision, once it is compiled; parts: of ours, the share of a step by what it was spent on."""

    asked: dict[str, float]
    published: dict[str, float]
    ours: dict[tuple[str, str], float]
    parts: dict[tuple[str, str], dict[str, float]]


def measured(repeats: int) -> Measured:
    data = images()
    with tempfile.TemporaryDirectory() as folder:
        cache = filled(Path(folder))
        teachers = {name: build_model(chosen, SHAPE, CLASSES).eval() for name, chosen in TEACHERS.items()}
        small = teachers["WRN-34-10"]
        published = {
            name: ReferenceStep(build_model(chosen, SHAPE, CLASSES), small, data.images)
            for name, chosen in STUDENTS.items()
        }
        ours = {
            (student, precision): OurStep(student, precision, data, cache, compiled=precision != "exact")
            for student, precisions in OURS.items()
            for precision in precisions
        }
        index = torch.arange(BATCH)
        for (_, precision), step in ours.items():
            if precision != "exact":  # compiled once; what others allocate once makes no median
                step(index)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # until here, the compiler may have all cores
        filling = configure_precision(build_model(TEACHERS["WRN-34-10"], SHAPE, CLASSES).eval(), "fp32")
        asked: dict[str, list[float]] = {name: [] for name in (*teachers, "WRN-34-10, prepared")}
        rest: dict[str, list[float]] = {name: [] for name in published}
        own: dict[tuple[str, str], list[float]] = {name: [] for name in ours}
        for repeat in range(repeats):
            index = (torch.arange(BATCH) + BATCH * (repeat + 1)) % IMAGES
            for name, step in published.items():
                began = time.process_time()
                answered = step(index)
                rest[name].append(time.process_time() - began - answered)
                asked["WRN-34-10"].append(answered)
            for name, step in ours.items():
                own[name].append(seconds(step, index))
            x = data.floats(data.images[index])
            with torch.no_grad():
                asked["WRN-70-16"].append(seconds(teachers["WRN-70-16"], x))
                asked["WRN-34-10, prepared"].append(seconds(filling, x))
        shares = {name: parts_of(step, index) for name, step in ours.items() if name[1] != "exact"}
    return Measured(
        {name: median(found) for name, found in asked.items()},
        {name: median(found) for name, found in rest.items()},
        {name: median(found) for name, found in own.items()},
        shares,
    )
