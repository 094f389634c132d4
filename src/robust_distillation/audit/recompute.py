"""Attacks again what a table says, from the checkpoint, and compares image by image."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from robust_distillation.columns import ON_SURROGATE
from robust_distillation.config import Experiment
from robust_distillation.device import select_device
from robust_distillation.errors import UserError
from robust_distillation.evaluation import blocks
from robust_distillation.evaluation.attack import attack_run
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import load_split
from robust_distillation.reporting.cells import Cell, cells

ELSEWHERE = 0.02  # share of the images whose verdict another processor or version may change by rounding


@dataclass(frozen=True)
class Recomputed:
    """A cell, how many verdicts were made again, and how many came out otherwise."""

    cell: Cell
    verdicts: int
    different: int

    @property
    def fits(self) -> bool:
        return self.different <= ELSEWHERE * self.verdicts

    def described(self) -> str:
        if not self.different:
            return f"{self.cell}: all {self.verdicts} verdicts are the same again"
        verdict = "DOES NOT FIT: " if not self.fits else ""
        return (
            f"{verdict}{self.cell}: {self.different} of {self.verdicts} verdicts came out otherwise; on the record's "
            f"machine and versions none should, elsewhere up to {ELSEWHERE:.0%} may"
        )


def recomputed(experiment: Experiment, count: int, seed: int) -> Iterator[Recomputed]:
    """`count` cells of the main table, chosen by `seed`; all of them where there are fewer."""
    known = list(cells(experiment))
    chosen = random.Random(seed).sample(known, min(count, len(known)))
    device, data = select_device(experiment.compute), load_split(experiment, "test")
    layout, evaluation, precision = experiment.layout, experiment.evaluation, experiment.compute.precision
    todo = blocks.blocks(experiment.test_images, evaluation.block_size, evaluation.seed)
    for cell in chosen:
        attacks, surrogate, verdicts, different = [], None, 0, 0
        if cell.metric != "clean":
            attacks = [cell.metric]
            if cell.metric.startswith(ON_SURROGATE):
                name = experiment.surrogate
                surrogate = load_for_inference(experiment.teacher_weights(name), precision, device)
        for model in cell.models(experiment):
            files = {cell.checkpoint: model.checkpoints[cell.checkpoint]}
            again = attack_run(
                files, data, todo, attacks, experiment.threat_model, device,
                surrogate, None, precision, evaluation.search,
            )  # fmt: skip
            stored = read_outcomes([layout.outcomes(model.folder)])
            stored = stored[stored["checkpoint"] == cell.checkpoint]
            merged = again.merge(stored, on="index", suffixes=("_again", ""))
            if len(merged) != len(again):
                raise UserError(
                    f"{layout.outcomes(model.folder)}: does not hold the {len(again)} images of the experiment"
                )
            column = "prediction" if cell.metric == "clean" else cell.metric
            verdicts += len(merged)
            different += int((merged[column] != merged[f"{column}_again"]).sum())
        yield Recomputed(cell, verdicts, different)
