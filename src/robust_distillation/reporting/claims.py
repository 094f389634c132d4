"""Verdicts on the experiment's claims: one per claim and comparison, beside the paper's own numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, NO_TEACHER, SEED, STUDENT, TEACHER
from robust_distillation.comparison import Comparison
from robust_distillation.config import Claim, Experiment, claims_of, comparison_settings
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.reference import published
from robust_distillation.reporting import comparisons, formats
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.statistics import verdicts
from robust_distillation.statistics.comparing import Outcomes, paired
from robust_distillation.statistics.intervals import ALPHA

COLUMNS = [
    "claim", "text", TEACHER, STUDENT, "verdict", "difference", "ci_low", "ci_high", "level", "n_seeds", "n_images",
    "seeds_needed", "published", "mark", "source", "paper", "scale",
]  # fmt: skip
HEAD = ["claim", TEACHER, STUDENT, "verdict", "difference", "simultaneous interval", "published", "seeds needed"]
STRUCTURE = "structure"
NONE = "The experiment makes no claims."


class Evidence:
    """The measurements that claims are judged by.

    Attributes:
        outcomes: those on the experiment's images under "", and on each transfer's under transfer-TARGET.
        distances: as `reporting.structure.distances` returns them; None if no claim is about them.
    """

    def __init__(self, outcomes: Mapping[str, Outcomes], distances: pd.DataFrame | None = None):
        self.outcomes, self.distances = outcomes, distances

    @classmethod
    def of(cls, files: Mapping[str, list[Path]], spec: TableSpec) -> Evidence:
        """Reads the files of each analysis, as pipeline.steps.Compare.evidence names them. spec: the comparisons."""
        distances = None
        if STRUCTURE in files:
            from robust_distillation.reporting import structure  # imports torch

            distances = structure.distances(structure.read_structures(files[STRUCTURE]), spec)
        outcomes = {name: Outcomes.of(read_outcomes(group)) for name, group in files.items() if name != STRUCTURE}
        return cls(outcomes, distances)

    def differences(self, claim: Claim, comparison: Comparison) -> np.ndarray | str:
        """Returns the claim's first method less its second, [S,N] of outcomes or [S] of distances.

        If no seed has both, returns the reason as text.
        """
        about = claim.statement
        methods = (about.method, about.other)
        if about.analysis == STRUCTURE:
            first, second = (self._distances(claim, comparison, method) for method in methods)
            both = first.index.intersection(second.index)
            values = (first[both] - second[both]).to_numpy() if len(both) else None
        else:
            outcomes = self.outcomes[about.analysis]
            correct = [outcomes.find(comparison, method, about.checkpoint) for method in methods]
            if missing := [method for method, of in zip(methods, correct, strict=True) if of is None]:
                return f"no run of {' and '.join(missing)}"
            values = paired(*correct, about.metric)
        return "no seed that both have" if values is None else values

    def _distances(self, claim: Claim, comparison: Comparison, method: str) -> pd.Series:
        """Returns the distances of a method by seed."""
        values = {
            TEACHER: comparison.teacher, STUDENT: comparison.student, METHOD: method,
            METRIC: claim.statement.metric, CHECKPOINT: claim.statement.checkpoint,
        }  # fmt: skip
        rows = self.distances
        return rows[(rows[list(values)] == list(values.values())).all(axis=1)].set_index(SEED)["value"]

    def images(self, claim: Claim, values: np.ndarray) -> int:
        """Returns the number of test images behind the differences."""
        return int(self.distances["n_images"].iloc[0]) if claim.statement.analysis == STRUCTURE else values.shape[1]


def write(experiment: Experiment, files: Mapping[str, list[Path]], folder: Path) -> None:
    """Writes FOLDER/comparisons.{csv,md,tex} and FOLDER/claims.{csv,md,tex}.

    Args:
        experiment: its claims, and the order of the rows.
        files: those of each analysis, as pipeline.steps.Compare.evidence names them.
        folder: of the tables.
    """
    spec = TableSpec(**experiment.matrix())
    evidence = Evidence.of(files, spec)
    comparisons.write_tables(comparisons.tidy(evidence.outcomes[""], spec), spec, folder)
    scale = comparison_settings(experiment)["scale"]
    write_tables(judged(claims_of(experiment), evidence, spec, scale), spec, folder)


def judged(claims: list[Claim], evidence: Evidence, spec: TableSpec, scale: dict[str, Any]) -> pd.DataFrame:
    """Returns claims.csv: a row of COLUMNS per claim and comparison. All rows are one family (Bonferroni).

    difference is the first method of the text less the second, in points or in the unit of a distance. seeds_needed is
    the number of seeds that would decide the claim (see statistics.verdicts), or the reason why nothing was measured.

    Args:
        claims: in the order of the rows.
        evidence: the measurements.
        spec: the published numbers.
        scale: texts for the column scale: `datasets` by analysis, `students` by name, and `protocol`.
    """
    family = sum(len(claim.comparisons) for claim in claims)
    rows = [
        _judged(claim, comparison, evidence, ALPHA / family) | _published(claim, comparison, evidence, spec)
        for claim in claims
        for comparison in claim.comparisons
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS[:-1], "analysis"])
    table["scale"] = [_scale(row, scale) for row in table.itertuples()]
    return table[COLUMNS]


def _judged(claim: Claim, comparison: Comparison, evidence: Evidence, alpha: float) -> dict[str, Any]:
    about, values = claim.statement, evidence.differences(claim, comparison)
    row = {
        "claim": claim.name, "text": claim.text, **comparison._asdict(), "paper": claim.paper,
        "analysis": about.analysis, "verdict": verdicts.INCONCLUSIVE, "level": round(1 - alpha, 6),
    }  # fmt: skip
    if isinstance(values, str):
        return row | {"n_seeds": 0, "seeds_needed": values}
    numbers = about.analysis == STRUCTURE
    unit, threshold = (1, about.threshold) if numbers else (100, about.threshold / 100)
    found = (verdicts.estimate_from_values if numbers else verdicts.estimate_from_outcomes)(values, alpha)
    row |= {
        "difference": _rounded(unit * found.mean),
        "n_seeds": found.seeds,
        "n_images": evidence.images(claim, values),
    }
    if found.seeds < 2:
        return row | {"seeds_needed": "at least 2: one seed says nothing of others"}
    ends = (found.mean - found.half_width, found.mean + found.half_width)
    low, high = ends if numbers else np.clip(ends, -1, 1)
    reached = verdicts.verdict(found, about.sign, threshold)
    needed = verdicts.seeds_needed(found, threshold) if reached == verdicts.INCONCLUSIVE else ""
    interval = {"ci_low": _rounded(unit * low), "ci_high": _rounded(unit * high)}
    return row | interval | {"verdict": reached, "seeds_needed": needed}


def _rounded(value: float) -> float:
    return round(float(value), 4) + 0.0  # + 0.0: never -0.0


def _published(claim: Claim, comparison: Comparison, evidence: Evidence, spec: TableSpec) -> dict[str, Any]:
    """The difference of two numbers of one paper, and how well the lesser known of them is; empty where one is not
    known."""
    about = claim.statement
    if about.analysis:
        return {}
    outcomes = evidence.outcomes[""]
    by_paper = []
    for method in (about.method, about.other):
        distilled = (*comparison, method, about.checkpoint) in outcomes.correct
        own = comparison.teacher if distilled else NO_TEACHER
        row = SimpleNamespace(
            teacher=own, student=comparison.student, method=method, checkpoint=about.checkpoint, metric=about.metric
        )
        by_paper.append({entry.paper: entry for entry in reversed(spec.known(row))})
    shared = next((key for key in reversed(by_paper[0]) if key in by_paper[1]), None)
    if shared is None:
        return {}
    one, other = (entries[shared] for entries in by_paper)
    mark = max(one.mark, other.mark, key=list(published.MARKS).index)
    source = "; ".join(dict.fromkeys(f"{entry.paper}, {entry.table}: {entry.source}" for entry in (one, other)))
    return {"published": _rounded(one.value - other.value), "mark": mark, "source": source}


def _scale(row: Any, scale: dict[str, Any]) -> str:
    dataset, student = scale["datasets"][row.analysis], scale["students"][row.student]
    images = "" if pd.isna(row.n_images) else f", {row.n_images:.0f} test images"
    seeds = "one seed" if row.n_seeds == 1 else f"{row.n_seeds} seeds"
    return f"{dataset}{images}, student {student}, {scale['protocol']} protocol, {seeds}"


def _cells(row: Any) -> list[str]:
    digits = 3 if "structure." in row.text else 2
    difference = "" if pd.isna(row.difference) else f"{row.difference:+.{digits}f}"
    interval = "" if pd.isna(row.ci_low) else f"{row.ci_low:+.{digits}f} to {row.ci_high:+.{digits}f}"
    printed = "" if pd.isna(row.published) else f"{row.published:+.2f} {row.mark}"
    return [row.text, row.teacher, row.student, row.verdict, difference, interval, printed, str(row.seeds_needed)]


def _caption(table: pd.DataFrame, spec: TableSpec) -> str:
    counted = Counter(table["verdict"])
    found = ", ".join(
        f"{counted[name]} {name}" for name in (verdicts.SUPPORTED, verdicts.REFUTED, verdicts.INCONCLUSIVE)
    )
    return (
        f"{spec.experiment}: claims, {spec.attacked}. {found}. Differences are the first method less the second, "
        f"in points or in the unit of the distance; all intervals hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni over {len(table)}), for other seeds and other test images, at this scale: "
        f"{'; '.join(dict.fromkeys(table['scale']))}."
    )


def _legend(table: pd.DataFrame) -> list[str]:
    papers = table[table["paper"].ne("")].drop_duplicates("claim")
    lines = [f"{row.claim} ({row.text}): {row.paper}" for row in papers.itertuples()]
    known = table.dropna(subset="published")
    marks = [f"{mark} {means}" for mark, means in published.MARKS.items() if mark in set(known["mark"])]
    if marks:
        lines.append(f"Published is the difference of two printed numbers. Marks: {'; '.join(marks)}.")
        lines.append(f"Sources: {'; '.join(dict.fromkeys(known['source']))}.")
    return lines


def markdown(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns claims.csv as a Markdown table."""
    if table.empty:
        return f"{NONE}\n"
    aligned = ["left"] * 4 + ["right"] * 3 + ["left"]
    grid = tabulate([_cells(row) for row in table.itertuples()], HEAD, "pipe", disable_numparse=True, colalign=aligned)
    parts = [_caption(table, spec), grid]
    if lines := _legend(table):
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def latex(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns claims.csv as a LaTeX table that may run over pages."""
    if table.empty:
        return f"{formats.escaped(NONE)}\n"
    rows = [_cells(row) for row in table.itertuples()]
    columns = r"p{0.2\textwidth}lllrrrp{0.2\textwidth}"
    made = formats.longtable(_caption(table, spec), HEAD, rows, columns)
    lines = " ".join(map(formats.escaped, _legend(table)))
    return f"{made}\n{{\\footnotesize {lines}\\par}}\n" if lines else made


def write_tables(table: pd.DataFrame, spec: TableSpec, folder: Path) -> list[Path]:
    """Writes FOLDER/claims.{csv,md,tex}, and returns their paths.

    Args:
        table: as `judged` returns it.
        spec: the experiment, for the caption.
        folder: of the tables.
    """
    return formats.write(folder / "claims", table, markdown(table, spec), latex(table, spec))
