"""Measures this program against the published step and plain tools, and writes what it found into
docs/performance.md, in the place of what was found on such a processor before:

    python benchmarks/bench.py [--repeats 5]

One process on one core, the two sides by turns, CPU time, medians: a figure is a ratio of the two in one run.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from pathlib import Path

import parts
import steps
import torch
from ceiling import flops_inside, peaks
from steps import BATCH, CLASSES, SCHEME, SHAPE, STUDENTS
from tabulate import tabulate

from robust_distillation.models.checkpoint import build_model
from robust_distillation.pipeline.record import processor
from robust_distillation.planning.cost import ATTACKS, FORWARDS

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"
SECTION, END = "\n### ", "<!-- /measured -->"  # one for each processor, then the end of them all
EPOCHS, RUNS = 300, 4 * 3


ASKED = {
    ("ResNet-18", "WRN-34-10", "exact"): "-",
    ("ResNet-18", "WRN-34-10", "fp32"): "1.7x",
    ("ResNet-18", "WRN-34-10", "bf16-inner"): "2.6x",
    ("ResNet-18", "WRN-34-10", "bf16"): "3.2x",
    ("MobileNetV2", "WRN-34-10", "exact"): "-",
    ("MobileNetV2", "WRN-34-10", "fp32"): "2.8x",
    ("MobileNetV2", "WRN-34-10", "bf16"): "-",
    ("ResNet-18", "WRN-70-16", "fp32"): "3.8x",
    ("MobileNetV2", "WRN-70-16", "fp32"): "8x",
    ("ResNet-18", "WRN-70-16", "bf16"): "6.5x",
}
INNER, OUTER = 10 * 2, 2 * 3  # of a step, in forward passes: the student attacked; then clean and adversarial images
PASSES = sum(count * FORWARDS[kind] for kind, count in ATTACKS["autoattack"].items())  # of an image that survives


class Ceiling:
    """The least seconds that the processor's peak allows."""

    def __init__(self) -> None:
        self.peaks = peaks()
        networks = STUDENTS if self.peaks else {}
        self.flops = {
            name: flops_inside(build_model(chosen, SHAPE, CLASSES).eval(), SHAPE) for name, chosen in networks.items()
        }

    def step(self, student: str, precision: str) -> float:
        low, full = self.peaks["bf16"], self.peaks["fp32"]
        inner, outer = {"bf16": (low, low), "bf16-inner": (low, full)}.get(precision, (full, full))
        return BATCH * self.flops[student] * (INNER / inner + OUTER / outer)

    def attack(self, precision: str) -> float:
        """Of AutoAttack on an image that survives."""
        return PASSES * self.flops["ResNet-18"] / self.peaks[precision]


def ratio(above: float, below: float | None) -> str:
    return "-" if below is None else f"{above / below:.2f}x"


def step_rows(found: steps.Measured, ceiling: Ceiling) -> list[tuple[str, str, str, str]]:
    rows = []
    for (student, teacher, precision), target in ASKED.items():
        published = found.asked[teacher] + found.published[student]
        least = ceiling.step(student, precision) if ceiling.peaks else None
        what = f"RSLAD step, {student}, teacher {teacher}, cache full, `{precision}`"
        rows.append((what, target, ratio(published, found.ours[student, precision]), ratio(published, least)))
    return rows


def study(found: steps.Measured) -> float:
    """4 methods x 3 seeds x 300 epochs that share a prefilled cache, over as many with the teacher asked every time;
    every method at what RSLAD costs."""
    student, teacher = "MobileNetV2", "WRN-34-10"
    published = RUNS * EPOCHS * (found.asked[teacher] + found.published[student])
    ours = len(SCHEME) * found.asked[f"{teacher}, prepared"] + RUNS * EPOCHS * found.ours[student, "fp32"]
    return published / ours


def attack_rows(attacked: dict[str, dict[str, float]], ceiling: Ceiling | None) -> list[tuple[str, str, str, str]]:
    plain, ours, search = (sum(times[side] for times in attacked.values()) for side in ("plain", "ours", "search"))
    fp32, bf16 = (ceiling.attack(kind) if ceiling and ceiling.peaks else None for kind in ("fp32", "bf16"))
    what = "standard AutoAttack, ResNet-18"
    return [
        (f"{what}, fp32", "1.4x", ratio(plain, ours), ratio(plain, fp32)),
        (f"{what}, search in bf16, judged in fp32", "2.0x", ratio(plain, search), ratio(plain, bf16)),
        (
            f"{what}, survivors of bf16 attacked again in fp32", "-", ratio(plain, search + ours),
            ratio(plain, fp32 + bf16 if fp32 else None),
        ),
        *((f"- {name}, fp32", "-", ratio(times["plain"], times["ours"]), "") for name, times in attacked.items()),
    ]  # fmt: skip


def measured(repeats: int) -> str:
    began = time.monotonic()
    ceiling = Ceiling()
    trained = steps.measured(repeats)
    filled = parts.filling(repeats)
    read, opened, added, size = parts.reading(repeats)
    augmented = parts.augmenting(repeats)
    attacked = parts.autoattack(repeats)
    jobs, planned, idle = parts.workflow()
    share = read / min(trained.ours.values())
    rows = [
        *step_rows(trained, ceiling),
        (
            f"a study of {RUNS} trainings of {EPOCHS} epochs, MobileNetV2, WRN-34-10 (computed)",
            "2.5x", f"{study(trained):.2f}x", "",
        ),
        ("filling the cache, over bare forward passes", "at most 1.1x", f"{filled:.2f}x", ""),
        (
            f"reading a batch from a cache of {size / 1e6:.0f} MB, of the fastest step's time",
            "at most 1 %", f"{share:.3%}", "",
        ),
        ("memory that reading it adds", "at most 300 MB", f"{added:.0f} MB", ""),
        ("checking the cache when a training starts", "-", f"{opened:.2f} s per GB", ""),
        ("augmentation, over torchvision on PIL images", "10x", f"{augmented:.1f}x", ""),
        *attack_rows(attacked, ceiling),
        (f"`snakemake -n`, {jobs} jobs", "8 s CPU", f"{planned:.1f} s", ""),
        ("a start with nothing to do", "5 s", f"{idle:.1f} s", ""),
    ]  # fmt: skip
    seconds = [
        *((f"published, {name}", f"{value:.3f}") for name, value in trained.published.items()),
        *((f"teacher asked, {name}", f"{value:.3f}") for name, value in trained.asked.items()),
        *((f"ours, {name}, `{mode}`", f"{value:.3f}") for (name, mode), value in trained.ours.items()),
    ]
    spent = [
        (part, *(f"{shares[part]:.1%}" for shares in trained.parts.values())) for part in (*steps.PARTS, steps.REST)
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyautoattack", "snakemake"))
    peak = ", ".join(f"{kind} {flops / 1e9:.0f}" for kind, flops in (ceiling.peaks or {}).items()) or "not known"
    minutes = (time.monotonic() - began) / 60
    return "\n\n".join(
        (
            f"One core, peak in GFLOP/s: {peak}; {packages}; batches of {BATCH}; medians of {repeats}; "
            f"{minutes:.0f} minutes.",
            tabulate(rows, ["what", "asked for", "found", "peak allows"], "github", disable_numparse=True),
            "CPU seconds of a step, once it is compiled, without asking the teacher where that is told apart:",
            tabulate(seconds, ["step", "s"], "github", disable_numparse=True),
            "Where a step's time goes, by torch's profiler:",
            tabulate(
                spent, ["part", *(f"{student}, `{mode}`" for student, mode in trained.parts)], "github",
                disable_numparse=True,
            ),
        )
    )  # fmt: skip


def placed(page: str, name: str, text: str) -> str:
    """The page with `text` as the section of the processor of that name."""
    before, _, after = page.partition(END)
    head, *sections = before.split(SECTION)
    found = {title: body.strip() for title, _, body in (section.partition("\n") for section in sections)}
    found[name] = text
    measured = "".join(f"{SECTION}{title}\n\n{body}\n" for title, body in sorted(found.items()))
    return f"{head}{measured}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    text = measured(repeats)
    PAGE.write_text(placed(PAGE.read_text(), processor(), text))
    print(text)


if __name__ == "__main__":
    main()
