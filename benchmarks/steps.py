"""Measures training steps: the published one and this program's, in one process, one after the other."""

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

SHAPE, CLASSES, BATCH, IMAGES = (3, 32, 32), 10, 32, 256  # of an image; of the task; of a step; of the training split
SCHEME = ViewScheme(4, True)
THREAT = ThreatModel(norm="linf", eps=8 / 255)
TEACHERS = {
    "WRN-34-10": {"name": "wide_resnet", "depth": 34, "width": 10},
    "WRN-70-16": {"name": "wide_resnet", "depth": 70, "width": 16},
}
STUDENTS = {"ResNet-18": {"name": "resnet"}, "MobileNetV2": {"name": "mobilenet_v2"}}
OURS = {"ResNet-18": ("exact", "fp32", "bf16-inner", "bf16"), "MobileNetV2": ("exact", "fp32", "bf16")}


def images() -> Dataset:
    """Makes a training split of random images; the content of an image does not change the time of a step."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, *SHAPE), generator=draws, dtype=torch.uint8)
    return Dataset(pixels, torch.arange(IMAGES) % CLASSES, info("cifar10"))


def random_cache(folder: Path, rows: int = IMAGES, width: int = CLASSES) -> CachedValues:
    """Writes a cache of random logits to FOLDER/logits.npy and opens it.

    Args:
        folder: folder of the file.
        rows: number of images.
        width: number of classes.
    """
    key, batch = {"of": "the benchmark"}, 4096
    writer = Writer(folder / "logits.npy", key, (rows, len(SCHEME), width), "float32", batch)
    draws = torch.Generator().manual_seed(1)
    for part in torch.arange(rows * len(SCHEME)).split(batch):
        writer.add(3 * torch.randn(len(part), width, generator=draws))
    writer.finish()
    writer.scratch.unlink()
    return CachedValues(folder / "logits.npy", key)


class OurStep:
    """This program's RSLAD training step."""

    def __init__(self, student: str, precision: str, data: Dataset, cache: CachedValues, compiled: bool):
        """Makes the trainer.

        Args:
            student: key of STUDENTS.
            precision: `exact`, `fp32`, `bf16-inner` or `bf16`.
            data: the training split, on the device of the training.
            cache: the teacher's logits.
            compiled: true to compile the student by torch.compile.
        """
        model = build_model(STUDENTS[student], SHAPE, CLASSES).to(data.images.device)
        model = configure_precision(model, precision, TRAIN, compiled=compiled)
        method = RSLAD()
        settings = Training.model_validate(RSLAD.official(CLASSES, "resnet").training)
        self.trainer = Trainer(model, method, settings, THREAT, 0, teachers={TEACHER: Teacher(logits=cache)})
        self.data, self.steps = data, 0

    def __call__(self, index: torch.Tensor) -> None:
        """Trains on random views of images `index` [B]."""
        self.trainer.student.train()
        views = torch.randint(len(SCHEME), (len(index),))
        x, labels = self.data.views(SCHEME, index, views), self.data.labels[to_device(index, self.data.labels.device)]
        self.trainer.step(Batch(x, labels, index, views, 1, self.steps, self.steps + 1))
        self.steps += 1


PARTS = {
    "convolutions, forward": lambda name: name == "aten::mkldnn_convolution",
    "convolutions, backward": lambda name: name == "aten::convolution_backward",
    "batch norm, ReLU and sums, compiled": lambda name: "CompiledFxGraph" in name,
}
REST = "all else"


def parts_of(step: OurStep, index: torch.Tensor) -> dict[str, float]:
    """Measures the fractions of one step's CPU time by torch's profiler. They sum to 1.

    The time of a convolution includes the reordering of its weights for oneDNN.

    Args:
        step: the step to run.
        index: images of the batch, int64 [B].

    Returns:
        Part (a key of PARTS, or REST) to its fraction.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step(index)
    spent = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(spent.values())
    shares = {part: sum(t for name, t in spent.items() if of(name)) / total for part, of in PARTS.items()}
    return shares | {REST: 1 - sum(shares.values())}


def seconds(function: Callable, *arguments) -> float:
    """Calls `function(*arguments)` and returns the CPU seconds that it took."""
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


@dataclass
class Measured:
    """Medians of the CPU seconds of a batch.

    Attributes:
        teacher: teacher to the seconds of its forward pass.
        published: student to the seconds of the published step, without the teacher's pass.
        ours: student and precision to the seconds of this program's step, after compilation.
        parts: student and precision to the fractions of the step's time, see `parts_of`.
    """

    teacher: dict[str, float]
    published: dict[str, float]
    ours: dict[tuple[str, str], float]
    parts: dict[tuple[str, str], dict[str, float]]


def measure(repeats: int) -> Measured:
    """Measures all steps `repeats` times, by turns, on one core."""
    data = images()
    with tempfile.TemporaryDirectory() as folder:
        cache = random_cache(Path(folder))
        teachers = {name: build_model(architecture, SHAPE, CLASSES).eval() for name, architecture in TEACHERS.items()}
        small = teachers["WRN-34-10"]
        published = {
            name: ReferenceStep(build_model(architecture, SHAPE, CLASSES), small, data.images)
            for name, architecture in STUDENTS.items()
        }
        ours = {
            (student, precision): OurStep(student, precision, data, cache, compiled=precision != "exact")
            for student, precisions in OURS.items()
            for precision in precisions
        }
        index = torch.arange(BATCH)
        for (_, precision), step in ours.items():
            if precision != "exact":  # compiles; one-time allocations of the others do not change a median
                step(index)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the compiler was allowed all cores
        filling = configure_precision(build_model(TEACHERS["WRN-34-10"], SHAPE, CLASSES).eval(), "fp32")
        of_teacher: dict[str, list[float]] = {name: [] for name in (*teachers, "WRN-34-10, prepared")}
        of_published: dict[str, list[float]] = {name: [] for name in published}
        of_ours: dict[tuple[str, str], list[float]] = {name: [] for name in ours}
        for repeat in range(repeats):
            index = (torch.arange(BATCH) + BATCH * (repeat + 1)) % IMAGES
            for name, step in published.items():
                began = time.process_time()
                teacher_seconds = step(index)
                of_published[name].append(time.process_time() - began - teacher_seconds)
                of_teacher["WRN-34-10"].append(teacher_seconds)
            for name, step in ours.items():
                of_ours[name].append(seconds(step, index))
            x = data.floats(data.images[index])
            with torch.no_grad():
                of_teacher["WRN-70-16"].append(seconds(teachers["WRN-70-16"], x))
                of_teacher["WRN-34-10, prepared"].append(seconds(filling, x))
        shares = {name: parts_of(step, index) for name, step in ours.items() if name[1] != "exact"}
    return Measured(
        {name: median(times) for name, times in of_teacher.items()},
        {name: median(times) for name, times in of_published.items()},
        {name: median(times) for name, times in of_ours.items()},
        shares,
    )
