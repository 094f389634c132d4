"""Attacks checkpoints again for some cells of the main table, and compares the outcomes image by image."""

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

TOLERANCE = 0.02  # fraction of the outcomes that rounding may change on another processor or with other versions


@dataclass(frozen=True)
class Recomputed:
    """Comparison of the outcomes behind one table cell with outcomes that were computed again.

    An outcome is the result for one test image and one seed: the predicted class for the metric `clean`; for an attack,
    whether the clean and the attacked image are classified correctly.

    Attributes:
        cell: the cell of results/EXPERIMENT/tables/main.csv, a named tuple of teacher, student, method, checkpoint and
            metric, such as `wide/small/rslad/best/autoattack`.
        outcomes: number of outcomes that were computed again: test images times seeds.
        different: number of recomputed outcomes that differ from the stored ones.
    """

    cell: Cell
    outcomes: int
    different: int

    @property
    def fits(self) -> bool:
        """True if at most 2 % of the outcomes differ: rounding on another machine can change so many."""
        return self.different <= TOLERANCE * self.outcomes

    def text(self) -> str:
        """Formats the comparison as one line: the name of the cell and the number of outcomes that differ.

        The line starts with `DOES NOT FIT: ` if more than 2 % of the outcomes differ.
        """
        if not self.different:
            return f"{self.cell}: all {self.outcomes} outcomes are the same again"
        verdict = "DOES NOT FIT: " if not self.fits else ""
        return (
            f"{verdict}{self.cell}: {self.different} of {self.outcomes} outcomes differ; on the record's machine and "
            f"versions none should, elsewhere up to {TOLERANCE:.0%} may"
        )


def recompute_cells(experiment: Experiment, count: int, seed: int) -> Iterator[Recomputed]:
    """Attacks the networks behind random cells of tables/main.csv again, and compares the outcomes with the stored
    ones.

    An outcome is the result for one test image and one seed: the predicted class for the metric `clean`; for an attack,
    whether the clean and the attacked image are classified correctly. Nothing is written. Each cell costs as much time
    as the attack took in the experiment, for all seeds together.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            Its results must exist.
        count: number of cells to draw without repetition; 0 for none. All cells, if the table has fewer.
        seed: seed of the random choice of the cells. The seeds of the attacks are those of the experiment.

    Yields:
        One Recomputed for each cell, as soon as it is computed, in the order in which the cells were drawn. Its
        `outcomes` is the number of outcomes compared, `different` the number of those that differ, and `fits` is True
        if at most 2 % differ.

    Raises:
        UserError: if stored outcomes are missing, damaged or not of the experiment's test images, or if the images
            changed since the experiment was run.
    """
    every = [cell for cell in cells(experiment) if "." not in cell.metric]  # other metrics follow from outcomes
    sampled = random.Random(seed).sample(every, min(count, len(every)))
    device, data = select_device(experiment.compute), load_split(experiment, "test")
    layout, evaluation, precision = experiment.layout, experiment.evaluation, experiment.compute.precision
    todo = blocks.blocks(experiment.test_images, evaluation.block_size, evaluation.seed)
    for cell in sampled:
        attacks, surrogate, outcomes, different = [], None, 0, 0
        if cell.metric != "clean":
            attacks = [cell.metric]
            if cell.metric.startswith(ON_SURROGATE):
                name = experiment.surrogate
                surrogate = load_for_inference(experiment.teacher_weights(name), precision, device)
        for model in cell.models(experiment):
            files = {cell.checkpoint: model.checkpoints[cell.checkpoint]}
            again = attack_run(
                files, data, todo, attacks, experiment.threat_model, device,
                surrogate, None, precision, evaluation.search, experiment.model_augmentation,
            )  # fmt: skip
            stored = read_outcomes([layout.outcomes(model.folder)])
            stored = stored[stored["checkpoint"] == cell.checkpoint]
            merged = again.merge(stored, on="index", suffixes=("_again", ""))
            if len(merged) != len(again):
                raise UserError(
                    f"{layout.outcomes(model.folder)}: does not hold the {len(again)} images of the experiment"
                )
            column = "prediction" if cell.metric == "clean" else cell.metric
            outcomes += len(merged)
            different += int((merged[column] != merged[f"{column}_again"]).sum())
        yield Recomputed(cell, outcomes, different)
