"""Measures this program against the published step and plain tools, and writes what it found into
docs/performance.md:

    python benchmarks/bench.py [--repeats 5]

One process on one core, the two sides by turns, CPU time, medians: a figure is a ratio of the two in one run.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib.metadata import version
from pathlib import Path

import parts
import steps
import torch
from steps import BATCH, SCHEME
from tabulate import tabulate

from robust_distillation.provenance.record import processor

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
EPOCHS, RUNS = 300, 4 * 3


def step_rows(found: steps.Measured) -> list[tuple[str, str, str]]:
    def ratio(student: str, teacher: str, precision: str) -> str:
        return f"{(found.asked[teacher] + found.published[student]) / found.ours[student, precision]:.2f}x"

    asked = [
        ("ResNet-18", "WRN-34-10", "exact", "-"),
        ("ResNet-18", "WRN-34-10", "fp32", "1.7x (2.07x)"),
        ("ResNet-18", "WRN-34-10", "bf16-inner", "2.6x (3.35x)"),
        ("ResNet-18", "WRN-34-10", "bf16", "3.2x (4.12x)"),
        ("MobileNetV2", "WRN-34-10", "exact", "-"),
        ("MobileNetV2", "WRN-34-10", "fp32", "2.8x"),
        ("MobileNetV2", "WRN-34-10", "bf16", "-"),
        ("ResNet-18", "WRN-70-16", "fp32", "3.8x"),
        ("MobileNetV2", "WRN-70-16", "fp32", "8x"),
        ("ResNet-18", "WRN-70-16", "bf16", "6.5x"),
    ]
    return [
        (
            f"RSLAD step, {student}, teacher {teacher}, cache full, `{precision}`",
            target,
            ratio(student, teacher, precision),
        )
        for student, teacher, precision, target in asked
    ]


def study(found: steps.Measured) -> float:
    """4 methods x 3 seeds x 300 epochs that share a prefilled cache, over as many with the teacher asked every time;
    every method at what RSLAD costs."""
    student, teacher = "MobileNetV2", "WRN-34-10"
    published = RUNS * EPOCHS * (found.asked[teacher] + found.published[student])
    ours = len(SCHEME) * found.asked[f"{teacher}, prepared"] + RUNS * EPOCHS * found.ours[student, "fp32"]
    return published / ours


def measured(repeats: int) -> str:
    began = time.monotonic()
    trained = steps.measured(repeats)
    filled = parts.filling(repeats)
    read, opened, added, size = parts.reading(repeats)
    augmented = parts.augmenting(repeats)
    attacked, verdicts, other = parts.autoattack(min(repeats, 3))
    jobs, planned, idle = parts.workflow()
    plain, ours = (sum(times[side] for times in attacked.values()) for side in (0, 1))
    share = read / trained.ours["ResNet-18", "bf16"]
    rows = [
        *step_rows(trained),
        (
            f"a study of {RUNS} trainings of {EPOCHS} epochs, MobileNetV2, WRN-34-10 (computed)",
            "2.5x",
            f"{study(trained):.2f}x",
        ),
        ("filling the cache, over bare forward passes", "at most 1.1x", f"{filled:.2f}x"),
        (
            f"reading a batch from a cache of {size / 1e6:.0f} MB, of the fastest step's time",
            "at most 1 %",
            f"{share:.3%}",
        ),
        ("memory that reading it adds", "at most 300 MB", f"{added:.0f} MB"),
        ("checking the cache when a training starts", "-", f"{opened:.2f} s per GB"),
        ("augmentation, over torchvision on PIL images", "10x", f"{augmented:.1f}x"),
        ("standard AutoAttack, ResNet-18, fp32 (rounds scaled up)", "1.4x", f"{plain / ours:.2f}x"),
        *((f"- {name}", "-", f"{times[0] / times[1]:.2f}x") for name, times in attacked.items()),
        ("- verdicts that are not those of plain pyautoattack", "0", f"{other} of {verdicts}"),
        (f"`snakemake -n`, {jobs} jobs", "8 s CPU", f"{planned:.1f} s"),
        ("a start with nothing to do", "5 s", f"{idle:.1f} s"),
    ]
    seconds = [
        *((f"published, {name}", f"{value:.3f}", "") for name, value in trained.published.items()),
        *((f"teacher asked, {name}", f"{value:.3f}", "") for name, value in trained.asked.items()),
        *(
            (f"ours, {name}, `{mode}`", f"{value:.3f}", f"{trained.first[name, mode]:.0f}")
            for (name, mode), value in trained.ours.items()
        ),
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyautoattack", "snakemake"))
    minutes = (time.monotonic() - began) / 60
    return "\n\n".join(
        (
            f"{processor()}, one core; {packages}; batches of {BATCH}; medians of {repeats}; {minutes:.0f} minutes.",
            tabulate(rows, headers=["what", "asked for", "found"], tablefmt="github", disable_numparse=True),
            "CPU seconds of a step, and of the first one, in which the compiler works:",
            tabulate(seconds, headers=["step", "s", "first, s"], tablefmt="github", disable_numparse=True),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    before, rest = PAGE.read_text().split(BEGIN)
    text = measured(repeats)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    print(text)


if __name__ == "__main__":
    main()
