"""Measures training steps and AutoAttack on this machine's GPU.

Writes the results into docs/performance.md, where they replace those of the same type of GPU:

    python benchmarks/gpu.py [--repeats 5]

One process uses one GPU and measures the sides by turns. Each number is a median of wall-clock seconds, so time of the
host that does not overlap with the GPU's counts. The published step has torch's defaults, TF32 convolutions among them,
and gets augmented images, since its augmentation runs in other processes. This program's step makes its views.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from bench import PAGE, attack_rows, replace_section
from parts import autoattack
from reference_step import ReferenceStep
from steps import CLASSES, IMAGES, SHAPE, STUDENTS, TEACHERS, OurStep, images, random_cache
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from robust_distillation.cache.store import CachedValues
from robust_distillation.data.dataset import Dataset
from robust_distillation.models.checkpoint import build_model

GPU = torch.device("cuda")
BATCH = 128
ROUND = 4  # steps per measurement
MODES = {  # student to its precisions, and whether compiled
    "ResNet-18": [("exact", False), ("fp32", True), ("bf16-inner", True), ("bf16", False), ("bf16", True)],
    "MobileNetV2": [("exact", False), ("fp32", True), ("bf16", False), ("bf16", True)],
}


def set_backends(ours: bool) -> None:
    """Sets torch's backends as `device.select_device` does, or (ours false) to torch's defaults."""
    torch.backends.cudnn.allow_tf32 = not ours
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(ours)


class PublishedStep(ReferenceStep):
    """The published step on images that are augmented already."""

    def __init__(self, student: str, teacher: nn.Module):
        """Makes random images. student: key of STUDENTS."""
        super().__init__(build_model(STUDENTS[student], SHAPE, CLASSES).to(GPU), teacher, torch.empty(0, *SHAPE))
        self.images = torch.rand(IMAGES, *SHAPE)

    def batch(self, index: Tensor) -> Tensor:
        """Copies images `index` [B] to the GPU."""
        return self.images[index].to(GPU)


def took(function: Callable[[], object]) -> float:
    """Calls a function and returns the wall-clock seconds until the GPU has finished."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def computing(step: Callable[[], object]) -> float:
    """Calls a step and returns the seconds in which the GPU computes."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6


def step_rows(student: str, data: Dataset, cache: CachedValues, repeats: int) -> list[tuple[str, ...]]:
    """Measures the steps of one student, published and this program's.

    Args:
        student: key of STUDENTS.
        data: the training split, on the GPU.
        cache: the teacher's logits.
        repeats: number of measurements.

    Returns:
        Rows of the table: title, speed-up over the published step with each teacher, milliseconds of a step, of which
        the GPU computes, seconds of the first steps (compilation included), and GB of GPU memory.
    """
    sides: dict[str, tuple[bool, Callable[[Tensor], object]]] = {}
    for name, architecture in TEACHERS.items():
        teacher = build_model(architecture, SHAPE, CLASSES).eval().to(GPU)
        sides[f"published, teacher {name}"] = (False, PublishedStep(student, teacher))
    for precision, compiled in MODES[student]:
        step = OurStep(student, precision, data, cache, compiled)
        sides[f"`{precision}`{', compiled' if compiled else ''}"] = (True, step)
    batches = [(torch.arange(BATCH) + BATCH // 2 * number) % IMAGES for number in range(ROUND)]

    def timed(ours: bool, step: Callable[[Tensor], object]) -> float:
        set_backends(ours)
        return took(lambda: [step(index) for index in batches])

    first, memory = {}, {}
    for name, side in sides.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        first[name] = timed(*side)
        memory[name] = torch.cuda.max_memory_allocated() - before
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            times[name].append(timed(*side) / ROUND)
    seconds, rows = {name: median(side) for name, side in times.items()}, []
    for name, (ours, step) in sides.items():
        set_backends(ours)
        ratios = [seconds[f"published, teacher {teacher}"] / seconds[name] for teacher in TEACHERS]
        rows.append(
            (
                f"{student}, {name}",
                *(f"{ratio:.2f}x" if ours else "" for ratio in ratios),
                f"{1e3 * seconds[name]:.1f}",
                f"{1e3 * computing(lambda: step(batches[0])):.1f}",  # noqa: B023
                f"{first[name]:.0f}",
                f"{memory[name] / 1e9:.1f}",
            )
        )
        print(*rows[-1], sep=" | ", flush=True)
    return rows


def measure(repeats: int) -> str:
    """Measures everything and returns the GPU's section as Markdown."""
    began, data, rows = time.monotonic(), images().to(GPU), []
    with tempfile.TemporaryDirectory() as folder:
        cache = random_cache(Path(folder))
        for student in STUDENTS:
            rows += step_rows(student, data, cache, repeats)
            torch._dynamo.reset()
    set_backends(True)
    attacked = autoattack(repeats, BATCH, GPU, took)
    minutes = (time.monotonic() - began) / 60
    return "\n\n".join(
        (
            f"torch {torch.__version__.partition('+')[0]}, pyautoattack {version('pyautoattack')}; batches of {BATCH}; "
            f"medians of {repeats}; {minutes:.0f} minutes.",
            tabulate(
                rows,
                ["RSLAD step", *(f"teacher {name}" for name in TEACHERS), "ms", "of GPU", "first steps, s", "GB"],
                "github",
                disable_numparse=True,
            ),
            tabulate(
                [(what, found) for what, _, found, _ in attack_rows(attacked, None)],
                ["what", "found"], "github", disable_numparse=True,
            ),
        )
    )  # fmt: skip


def main() -> None:
    """Measures, prints the section and writes it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here; for a processor: python benchmarks/bench.py")
    torch.set_num_threads(1)
    text = measure(repeats)
    PAGE.write_text(replace_section(PAGE.read_text(), torch.cuda.get_device_name(), text))
    print(text)


if __name__ == "__main__":
    main()
