"""Tells which differences an experiment can decide, by the spread over seeds and images that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from tabulate import tabulate

from robust_distillation import metrics
from robust_distillation.comparison import Comparison
from robust_distillation.config import Claim, Experiment, claims_of
from robust_distillation.errors import UserError
from robust_distillation.pipeline.steps import Compare
from robust_distillation.reporting.claims import STRUCTURE, Evidence
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.statistics.comparing import Outcomes, paired
from robust_distillation.statistics.estimates import POWER, Estimate, SeedEstimate
from robust_distillation.statistics.intervals import ALPHA


def describe(experiment: Experiment, measured: Experiment | None, seeds: Sequence[int], images: Sequence[int]) -> str:
    """Describes the smallest difference that each claim of an experiment decides with a probability of 80 %.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. It must have
            claims.
        measured: another experiment, whose results give the spread; every two of its methods count, and the median of
            their differences is taken. None: the results of `experiment` itself.
        seeds: numbers of seeds, each at least 2.
        images: numbers of test images.

    Returns:
        A heading and a table with a row for each claim, teacher and student, and number of images, and a column for
        each number of seeds. A claim whose metric was not measured has a row that says so.

    Raises:
        UserError: if the experiment has no claims, or if results are missing.
    """
    claims = [(claim, comparison) for claim in claims_of(experiment) for comparison in claim.comparisons]
    if not claims:
        raise UserError("power: the experiment makes no claims. Give its file the key `claims`")
    source = measured or experiment
    step = Compare(source)
    if missing := [file for file in step.inputs if not file.is_file()]:
        raise UserError(
            f"{missing[0]}: is not there yet. Run {source.name} first, or name an experiment that was run: --measured "
            "FILE"
        )
    evidence = Evidence.of(step.evidence, TableSpec(**source.matrix()))
    alpha = ALPHA / len(claims)
    rows = []
    for claim, comparison in claims:
        if measured is None:
            found = evidence.estimate(claim, comparison, experiment.methods)
            estimates = [] if isinstance(found, str) or found.seeds < 2 else [found]
        else:
            estimates = list(_spreads(claim, evidence, measured))
        name = f"{claim.text} ({comparison.label})"
        if not estimates:
            rows.append([name, "", *["not measured"] * len(seeds)])
            continue
        unit = 1.0 if claim.statement.analysis == STRUCTURE else metrics.get(claim.statement.metric).scale
        for count in images:
            reach = [np.median([one.smallest_difference(s, count, alpha) for one in estimates]) for s in seeds]
            rows.append([name, f"{count:,}", *(f"{unit * value:.3g}" for value in reach)])
    head = ["claim", "test images", *(f"{count} seeds" for count in seeds)]
    aligned = ["left", *["right"] * (len(seeds) + 1)]
    table = tabulate(rows, head, disable_numparse=True, colalign=aligned)
    return (
        f"{experiment.name}: the smallest difference that each of {len(claims)} claims decides with a probability of "
        f"{POWER:.0%}, all at once at {1 - ALPHA:.0%}, in points or in the metric's own unit. By the spread over seeds "
        f"and images that {source.name} has.\n\n{table}"
    )


def _spreads(claim: Claim, evidence: Evidence, measured: Experiment) -> Iterator[Estimate | SeedEstimate]:
    """Yields the differences of every two methods of an experiment in the metric of a claim."""
    about = claim.statement
    outcomes = evidence.outcomes.get(about.analysis)
    checkpoint = about.checkpoint if about.checkpoint in measured.evaluation.checkpoints else None
    checkpoint = checkpoint or measured.evaluation.checkpoints[0]
    if outcomes is None:
        return
    for comparison in measured.comparisons:
        yield from _of_pairs(outcomes, comparison, list(measured.methods), checkpoint, about.metric)


def _of_pairs(
    outcomes: Outcomes, comparison: Comparison, methods: list[str], checkpoint: str, metric: str
) -> Iterator[Estimate]:
    models = {name: found for name in methods if (found := outcomes.find(comparison, name, checkpoint)) is not None}
    if not all(metrics.get(metric).attack in model.correct for model in models.values()):
        return
    shared = outcomes.shared_seeds(comparison, models, checkpoint, metric)
    for other, method in combinations(models, 2):
        found = paired(models[method], models[other], metric)
        if found is not None and len(found.values) > 1:
            yield Estimate.of(found, shared, method, other)
