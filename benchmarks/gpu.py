"""Measures training steps and AutoAttack on this machine's GPU, and writes what it found into docs/performance.md, in
the place of what was found on such a GPU before:

    python benchmarks/gpu.py [--repeats 5]

One process and one GPU, the sides by turns, seconds of the wall, medians: what the host cannot hide behind the GPU
counts. The published step has torch's defaults, convolutions in TF32 among them, and gets ready images, since its
augmentation runs in processes of its own; ours makes its views.
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
from bench import PAGE, attack_rows, placed
from parts import autoattack
from reference_step import ReferenceStep
from steps import CLASSES, IMAGES, SHAPE, STUDENTS, TEACHERS, OurStep, filled, images
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from robust_distillation.cache.store import CachedValues
from robust_distillation.data.dataset import Dataset
from robust_distillation.models.checkpoint import build_model

GPU = torch.device("cuda")
BATCH = 128
ROUND = 4  # steps between two looks at the clock
MODES = {  # and whether compiled
    "ResNet-18": [("exact", False), ("fp32", True), ("bf16-inner", True), ("bf16", False), ("bf16", True)],
    "MobileNetV2": [("exact", False), ("fp32", True), ("bf16", False), ("bf16", True)],
}


def chosen_by_us(ours: bool) -> None:
    """What `device.select_device` sets, or torch's defaults."""
    torch.backends.cudnn.allow_tf32 = not ours
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(ours)


class PublishedStep(ReferenceStep):
    """On ready images."""

    def __init__(self, student: str, teacher: nn.Module):
        super().__init__(build_model(STUDENTS[student], SHAPE, CLASSES).to(GPU), teacher, torch.empty(0, *SHAPE))
        self.ready = torch.rand(IMAGES, *SHAPE)

    def batch(self, index: Tensor) -> Tensor:
        return self.ready[index].to(GPU)


def took(function: Callable[[], object]) -> float:
    """Seconds until the GPU is done with it."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def computing(step: Callable[[], object]) -> float:
    """Seconds in which the GPU computes."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6


def step_rows(student: str, data: Dataset, cache: CachedValues, repeats: int) -> list[tuple[str, ...]]:
    """What; times faster than the published step with either teacher; ms of a step, and in which the GPU computes;
    seconds of the first steps; GB."""
    sides: dict[str, tuple[bool, Callable[[Tensor], object]]] = {}
    for name, architecture in TEACHERS.items():
        teacher = build_model(architecture, SHAPE, CLASSES).eval().to(GPU)
        sides[f"published, teacher {name}"] = (False, PublishedStep(student, teacher))
    for precision, compiled in MODES[student]:
        step = OurStep(student, precision, data, cache, compiled)
        sides[f"`{precision}`{', compiled' if compiled else ''}"] = (True, step)
    batches = [(torch.arange(BATCH) + BATCH // 2 * number) % IMAGES for number in range(ROUND)]

    def timed(ours: bool, step: Callable[[Tensor], object]) -> float:
        chosen_by_us(ours)
        return took(lambda: [step(index) for index in batches])

    first, memory = {}, {}
    for name, side in sides.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        first[name] = timed(*side)
        memory[name] = torch.cuda.max_memory_allocated() - before
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            found[name].append(timed(*side) / ROUND)
    seconds, rows = {name: median(times) for name, times in found.items()}, []
    for name, (ours, step) in sides.items():
        chosen_by_us(ours)
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


def measured(repeats: int) -> str:
    began, data, rows = time.monotonic(), images().to(GPU), []
    with tempfile.TemporaryDirectory() as folder:
        cache = filled(Path(folder))
        for student in STUDENTS:
            rows += step_rows(student, data, cache, repeats)
            torch._dynamo.reset()
    chosen_by_us(True)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here; for a processor: python benchmarks/bench.py")
    torch.set_num_threads(1)
    text = measured(repeats)
    PAGE.write_text(placed(PAGE.read_text(), torch.cuda.get_device_name(), text))
    print(text)


if __name__ == "__main__":
    main()
