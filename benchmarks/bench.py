"""Measures this program against the published training step and plain tools.

Writes the results into docs/performance.md, where they replace those of the same type of processor:

    python benchmarks/bench.py [--repeats 5]

One process runs on one core and measures the two sides by turns. Each number is a ratio of medians of CPU time.
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
from robust_distillation.planning.calls import FORWARDS
from robust_distillation.planning.cost import ATTACKS

PAGE = Path(__file__).resolve().parent.parent / "docs/performance.md"
SECTION, END = "\n### ", "<!-- /measured -->"  # head of a processor's section, and the end of all sections
EPOCHS, RUNS = 300, 4 * 3

TARGETS = {  # speed-up over the published step that is aimed at
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
INNER, OUTER = 10 * 2, 2 * 3  # forward passes' worth of a step: of the attack; of training on clean and adversarial x
PASSES = sum(count * FORWARDS[kind] for kind, count in ATTACKS["autoattack"].items())  # for an image that survives


class Ceiling:
    """Lower bounds of times, from the processor's peak FLOP/s."""

    def __init__(self) -> None:
        """Measures the peak and counts the FLOPs of the students."""
        self.peaks = peaks()
        networks = STUDENTS if self.peaks else {}
        self.flops = {
            name: flops_inside(build_model(architecture, SHAPE, CLASSES).eval(), SHAPE)
            for name, architecture in networks.items()
        }

    def step(self, student: str, precision: str) -> float:
        """Computes the least seconds of a training step of a batch."""
        low, full = self.peaks["bf16"], self.peaks["fp32"]
        inner, outer = {"bf16": (low, low), "bf16-inner": (low, full)}.get(precision, (full, full))
        return BATCH * self.flops[student] * (INNER / inner + OUTER / outer)

    def attack(self, precision: str) -> float:
        """Computes the least seconds of AutoAttack on an image that survives, with a ResNet-18."""
        return PASSES * self.flops["ResNet-18"] / self.peaks[precision]


def ratio(above: float, below: float | None) -> str:
    """Formats above / below as `1.50x`; `-` if `below` is None."""
    return "-" if below is None else f"{above / below:.2f}x"


def step_rows(measured: steps.Measured, ceiling: Ceiling) -> list[tuple[str, str, str, str]]:
    """Makes the rows of the training steps: title, target, measured speed-up, and the speed-up that the peak allows."""
    rows = []
    for (student, teacher, precision), target in TARGETS.items():
        published = measured.teacher[teacher] + measured.published[student]
        least = ceiling.step(student, precision) if ceiling.peaks else None
        title = f"RSLAD step, {student}, teacher {teacher}, cache full, `{precision}`"
        rows.append((title, target, ratio(published, measured.ours[student, precision]), ratio(published, least)))
    return rows


def study(measured: steps.Measured) -> float:
    """Computes the speed-up of a study: 4 methods x 3 seeds x 300 epochs that share one cache.

    The published code calls the teacher in every step instead. Every method is taken to cost what RSLAD costs.
    """
    student, teacher = "MobileNetV2", "WRN-34-10"
    published = RUNS * EPOCHS * (measured.teacher[teacher] + measured.published[student])
    ours = len(SCHEME) * measured.teacher[f"{teacher}, prepared"] + RUNS * EPOCHS * measured.ours[student, "fp32"]
    return published / ours


def attack_rows(seconds: dict[str, dict[str, float]], ceiling: Ceiling | None) -> list[tuple[str, str, str, str]]:
    """Makes the rows of AutoAttack: title, target, measured speed-up, and the speed-up that the peak allows.

    Args:
        seconds: the result of `parts.autoattack`.
        ceiling: None if the peak is not known.
    """
    plain, ours, search = (sum(times[side] for times in seconds.values()) for side in ("plain", "ours", "search"))
    fp32, bf16 = (ceiling.attack(kind) if ceiling and ceiling.peaks else None for kind in ("fp32", "bf16"))
    title = "standard AutoAttack, ResNet-18"
    return [
        (f"{title}, fp32", "1.4x", ratio(plain, ours), ratio(plain, fp32)),
        (f"{title}, search in bf16, judged in fp32", "2.0x", ratio(plain, search), ratio(plain, bf16)),
        (
            f"{title}, survivors of bf16 attacked again in fp32", "-", ratio(plain, search + ours),
            ratio(plain, fp32 + bf16 if fp32 else None),
        ),
        *((f"- {name}, fp32", "-", ratio(times["plain"], times["ours"]), "") for name, times in seconds.items()),
    ]  # fmt: skip


def measure(repeats: int) -> str:
    """Measures everything and returns the processor's section as Markdown."""
    began = time.monotonic()
    ceiling = Ceiling()
    trained = steps.measure(repeats)
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
        *((f"teacher asked, {name}", f"{value:.3f}") for name, value in trained.teacher.items()),
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


def replace_section(page: str, name: str, text: str) -> str:
    """Puts a section into a page in place of the old one.

    Args:
        page: the Markdown page.
        name: title of the section: the processor or the GPU.
        text: content of the section.
    """
    before, _, after = page.partition(END)
    head, *sections = before.split(SECTION)
    bodies = {title: body.strip() for title, _, body in (section.partition("\n") for section in sections)}
    bodies[name] = text
    measured = "".join(f"{SECTION}{title}\n\n{body}\n" for title, body in sorted(bodies.items()))
    return f"{head}{measured}\n{END}{after}"


def main() -> None:
    """Measures, prints the section and writes it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    text = measure(repeats)
    PAGE.write_text(replace_section(PAGE.read_text(), processor(), text))
    print(text)


if __name__ == "__main__":
    main()
