"""Claims and what became of them: a verdict for every teacher and student, beside what the paper printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from robust_distillation.columns import NO_TEACHER
from robust_distillation.config import Claim, Experiment, claims_of, comparison_settings
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import read_json
from robust_distillation.reference import published
from robust_distillation.reporting import comparisons, formats
from robust_distillation.reporting.tables import Matrix
from robust_distillation.statistics import verdicts
from robust_distillation.statistics.comparing import Outcomes, paired
from robust_distillation.statistics.intervals import ALPHA

COLUMNS = [
    "claim", "text", "teacher", "student", "verdict", "difference", "ci_low", "ci_high", "level", "n_seeds", "n_images",
    "seeds_needed", "published", "mark", "source", "paper", "scale",
]  # fmt: skip
HEAD = ["claim", "teacher", "student", "verdict", "difference", "simultaneous interval", "published", "seeds needed"]
STRUCTURE = "structure"
NONE = "The experiment makes no claims."


class Evidence:
    """What claims are judged by: outcomes on the experiment's images (under "") and on those of each transfer
    (transfer-TARGET), and `distances`, the rows of reporting.structure.distances."""

    def __init__(self, outcomes: Mapping[str, Outcomes], distances: pd.DataFrame | None = None):
        self.outcomes, self.distances = outcomes, distances

    @classmethod
    def of(cls, files: Mapping[str, list[Path]], matrix: Matrix) -> Evidence:
        """Of the files of each analysis, as pipeline.steps.Compare.evidence names them."""
        distances = None
        if STRUCTURE in files:
            from robust_distillation.reporting import structure  # imports torch

            distances = structure.distances([read_json(file) for file in files[STRUCTURE]], matrix)
        outcomes = {name: Outcomes.of(read_outcomes(group)) for name, group in files.items() if name != STRUCTURE}
        return cls(outcomes, distances)

    def differences(self, claim: Claim, teacher: str, student: str) -> np.ndarray | str:
        """Of the claim's two methods: [S,N] of outcomes, or [S] of distances; or why there are none."""
        about = claim.statement
        methods = (about.method, about.other)
        if about.analysis == STRUCTURE:
            found = [self._distances(claim, teacher, student, method) for method in methods]
            both = found[0].index.intersection(found[1].index)
            values = (found[0][both] - found[1][both]).to_numpy() if len(both) else None
        else:
            outcomes = self.outcomes[about.analysis]
            held = [outcomes.find(teacher, student, method, about.checkpoint) for method in methods]
            if missing := [method for method, of in zip(methods, held, strict=True) if of is None]:
                return f"no run of {' and '.join(missing)}"
            values = paired(*held, about.metric)
        return "no seed that both have" if values is None else values

    def _distances(self, claim: Claim, teacher: str, student: str, method: str) -> pd.Series:
        """By seed."""
        about, rows = claim.statement, self.distances
        here = rows["teacher"].eq(teacher) & rows["student"].eq(student) & rows["method"].eq(method)
        own = rows[here & rows["metric"].eq(about.metric) & rows["checkpoint"].eq(about.checkpoint)]
        return own.set_index("seed")["value"]

    def images(self, claim: Claim, values: np.ndarray) -> int:
        """How many test images the differences are of."""
        return int(self.distances["n_images"].iloc[0]) if claim.statement.analysis == STRUCTURE else values.shape[1]


def write(experiment: Experiment, files: Mapping[str, list[Path]], folder: Path) -> None:
    """FOLDER/comparisons.{csv,md,tex} and FOLDER/claims.{csv,md,tex}."""
    matrix, evidence = Matrix(**experiment.matrix()), Evidence.of(files, Matrix(**experiment.matrix()))
    comparisons.write_tables(comparisons.tidy(evidence.outcomes[""], matrix), matrix, folder)
    scale = comparison_settings(experiment)["scale"]
    write_tables(judged(claims_of(experiment), evidence, matrix, scale), matrix, folder)


def judged(claims: list[Claim], evidence: Evidence, matrix: Matrix, scale: dict[str, Any]) -> pd.DataFrame:
    """COLUMNS: a row per claim, teacher and student. All verdicts of an experiment are one family (Bonferroni).

    difference: the first method of the text less the second, in points, or in the unit of a distance. seeds_needed: see
    statistics.verdicts, or why there is nothing to judge. scale, for the column of that name: `datasets` by analysis,
    `students` by name, `protocol`.
    """
    family = sum(len(claim.pairs) for claim in claims)
    rows = [
        _judged(claim, teacher, student, evidence, ALPHA / family)
        | _published(claim, teacher, student, evidence, matrix)
        for claim in claims
        for teacher, student in claim.pairs
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS[:-1], "analysis"])
    table["scale"] = [_scale(row, scale) for row in table.itertuples()]
    return table[COLUMNS]


def _judged(claim: Claim, teacher: str, student: str, evidence: Evidence, alpha: float) -> dict[str, Any]:
    about, values = claim.statement, evidence.differences(claim, teacher, student)
    row = {
        "claim": claim.name, "text": claim.text, "teacher": teacher, "student": student, "paper": claim.paper,
        "analysis": about.analysis, "verdict": verdicts.INCONCLUSIVE, "level": round(1 - alpha, 6),
    }  # fmt: skip
    if isinstance(values, str):
        return row | {"n_seeds": 0, "seeds_needed": values}
    numbers = about.analysis == STRUCTURE
    unit, threshold = (1, about.threshold) if numbers else (100, about.threshold / 100)
    found = (verdicts.of_numbers if numbers else verdicts.of_outcomes)(values, alpha)
    row |= {
        "difference": _rounded(unit * found.mean),
        "n_seeds": found.seeds,
        "n_images": evidence.images(claim, values),
    }
    if found.seeds < 2:
        return row | {"seeds_needed": "at least 2: one seed says nothing of others"}
    ends = (found.mean - found.half, found.mean + found.half)
    low, high = ends if numbers else np.clip(ends, -1, 1)
    reached = verdicts.verdict(found, about.sign, threshold)
    needed = verdicts.seeds_needed(found, threshold) if reached == verdicts.INCONCLUSIVE else ""
    interval = {"ci_low": _rounded(unit * low), "ci_high": _rounded(unit * high)}
    return row | interval | {"verdict": reached, "seeds_needed": needed}


def _rounded(value: float) -> float:
    return round(float(value), 4) + 0.0  # + 0.0: never -0.0


def _published(claim: Claim, teacher: str, student: str, evidence: Evidence, matrix: Matrix) -> dict[str, Any]:
    """The difference of two numbers of one paper, and how well the lesser known of them is; empty where one is not
    known."""
    about = claim.statement
    if about.analysis:
        return {}
    outcomes = evidence.outcomes[""]
    by_paper = []
    for method in (about.method, about.other):
        own = teacher if (teacher, student, method, about.checkpoint) in outcomes.held else NO_TEACHER
        row = SimpleNamespace(
            teacher=own, student=student, method=method, checkpoint=about.checkpoint, metric=about.metric
        )
        by_paper.append({entry.paper: entry for entry in reversed(matrix.known(row))})
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
    shown = "" if pd.isna(row.difference) else f"{row.difference:+.{digits}f}"
    interval = "" if pd.isna(row.ci_low) else f"{row.ci_low:+.{digits}f} to {row.ci_high:+.{digits}f}"
    printed = "" if pd.isna(row.published) else f"{row.published:+.2f} {row.mark}"
    return [row.text, row.teacher, row.student, row.verdict, shown, interval, printed, str(row.seeds_needed)]


def _caption(table: pd.DataFrame, matrix: Matrix) -> str:
    counted = Counter(table["verdict"])
    found = ", ".join(
        f"{counted[name]} {name}" for name in (verdicts.SUPPORTED, verdicts.REFUTED, verdicts.INCONCLUSIVE)
    )
    return (
        f"{matrix.experiment}: claims, {matrix.attacked}. {found}. Differences are the first method less the second, "
        f"in points or in the unit of the distance; all intervals hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni over {len(table)}), for other seeds and other test images, at this scale: "
        f"{'; '.join(dict.fromkeys(table['scale']))}."
    )


def _legend(table: pd.DataFrame) -> list[str]:
    said = table[table["paper"].ne("")].drop_duplicates("claim")
    lines = [f"{row.claim} ({row.text}): {row.paper}" for row in said.itertuples()]
    known = table.dropna(subset="published")
    marks = [f"{mark} {means}" for mark, means in published.MARKS.items() if mark in set(known["mark"])]
    if marks:
        lines.append(f"Published is the difference of two printed numbers. Marks: {'; '.join(marks)}.")
        lines.append(f"Sources: {'; '.join(dict.fromkeys(known['source']))}.")
    return lines


def markdown(table: pd.DataFrame, matrix: Matrix) -> str:
    if table.empty:
        return f"{NONE}\n"
    aligned = ["left"] * 4 + ["right"] * 3 + ["left"]
    grid = tabulate([_cells(row) for row in table.itertuples()], HEAD, "pipe", disable_numparse=True, colalign=aligned)
    parts = [_caption(table, matrix), grid]
    if lines := _legend(table):
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def latex(table: pd.DataFrame, matrix: Matrix) -> str:
    """A longtable (the package of that name)."""
    if table.empty:
        return f"{formats.escaped(NONE)}\n"
    rows = [_cells(row) for row in table.itertuples()]
    columns = r"p{0.2\textwidth}lllrrrp{0.2\textwidth}"
    made = formats.longtable(_caption(table, matrix), HEAD, rows, columns)
    lines = " ".join(map(formats.escaped, _legend(table)))
    return f"{made}\n{{\\footnotesize {lines}\\par}}\n" if lines else made


def write_tables(table: pd.DataFrame, matrix: Matrix, folder: Path) -> list[Path]:
    """FOLDER/claims.{csv,md,tex}."""
    return formats.write(folder / "claims", table, markdown(table, matrix), latex(table, matrix))
