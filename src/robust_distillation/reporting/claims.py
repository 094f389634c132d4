"""Tests the experiment's claims on the results: one verdict per claim and comparison, beside the papers' own numbers.

A claim is a statement of the experiment file such as `rslad > ard on autoattack`. A comparison is a student with a
teacher, or with none.
"""

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
    """The measurements on which claims are tested.

    Attributes:
        outcomes: analysis to the outcomes (correct or not) of all models, as matrices of seeds and images. The analysis
            is "" for the experiment's test images and `transfer-TARGET` for those of another dataset.
        distances: distances of the structure analysis, as `reporting.structure.distances` returns them. Columns:
            `teacher`, `student`, `method`, `checkpoint`, `seed`, `n_images`, `metric` and `value`. None if no claim is
            about them.
    """

    def __init__(self, outcomes: Mapping[str, Outcomes], distances: pd.DataFrame | None = None):
        """Stores the measurements.

        Args:
            outcomes: analysis ("" or `transfer-TARGET`) to the outcomes of all models.
            distances: as `reporting.structure.distances` returns them, or None.
        """
        self.outcomes, self.distances = outcomes, distances

    @classmethod
    def of(cls, files: Mapping[str, list[Path]], spec: TableSpec) -> Evidence:
        """Reads the measurements from files.

        Args:
            files: analysis to its files, one per model, for example `{"": [...], "structure": [...], "transfer-parity":
                [...]}`. The key "" stands for the experiment's test images. The files are JSON for `structure`, else
                outcomes (Parquet).
            spec: the comparisons (student and teacher) for which distances between student and teacher are computed.

        Raises:
            UserError: if a file of outcomes is missing or broken.
        """
        distances = None
        if STRUCTURE in files:
            from robust_distillation.reporting import structure  # imports torch

            distances = structure.distances(structure.read_structures(files[STRUCTURE]), spec)
        outcomes = {name: Outcomes.of(read_outcomes(group)) for name, group in files.items() if name != STRUCTURE}
        return cls(outcomes, distances)

    def differences(self, claim: Claim, comparison: Comparison) -> np.ndarray | str:
        """Computes the differences of a claim's two methods in the claim's metric, seed by seed.

        Of each method the student distilled from the comparison's teacher is used or, if there is none, the one trained
        without a teacher.

        Args:
            claim: the claim, with its methods, metric and checkpoint.
            comparison: the student and the teacher.

        Returns:
            First method minus second, for the S seeds that both have. For accuracies int8 [S,N] of -1, 0 and 1 for N
            test images; for a distance of the structure analysis float [S]. If no seed has both, a text with the
            reason.
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
        """Returns the number of test images from which differences were measured.

        Args:
            claim: the claim.
            values: the differences, as `differences` returns them for the claim.
        """
        return int(self.distances["n_images"].iloc[0]) if claim.statement.analysis == STRUCTURE else values.shape[1]


def write(experiment: Experiment, files: Mapping[str, list[Path]], folder: Path) -> None:
    """Writes the tables of all differences between methods and of the verdicts on the claims.

    The files are FOLDER/comparisons.{csv,md,tex} and FOLDER/claims.{csv,md,tex}.

    Args:
        experiment: the parsed experiment file, with every default filled in, and its claims.
        files: analysis to its files, one per model: "" for the outcomes on the experiment's test images and, if claims
            are about them, `structure` and `transfer-TARGET`.
        folder: folder of the tables.

    Raises:
        UserError: if a file of outcomes is missing or broken.
    """
    spec = TableSpec(**experiment.matrix())
    evidence = Evidence.of(files, spec)
    comparisons.write_tables(comparisons.tidy(evidence.outcomes[""], spec), spec, folder)
    scale = comparison_settings(experiment)["scale"]
    write_tables(judged(claims_of(experiment), evidence, spec, scale), spec, folder)


def judged(claims: list[Claim], evidence: Evidence, spec: TableSpec, scale: dict[str, Any]) -> pd.DataFrame:
    """Tests claims on the measurements.

    The intervals of all rows together cover with 95 % (Bonferroni). The verdict is `supported` if the claim is true on
    the whole interval and `refuted` if it is false on the whole interval, else `inconclusive`. With fewer than two
    seeds it is always `inconclusive`.

    Args:
        claims: the claims, in the order of the rows.
        evidence: the measurements.
        spec: the published numbers to print beside the differences.
        scale: texts for the column `scale`: `datasets` (analysis to name of the dataset), `students` (name to
            description) and `protocol`, as in `config.comparison_settings`.

    Returns:
        A row per claim and comparison, the content of claims.csv. Empty without claims. Columns:

        - `claim`, `text`: the claim's name and sentence.
        - `teacher`, `student`: the comparison. The teacher is `none` if neither method has one.
        - `verdict`: `supported`, `refuted` or `inconclusive`.
        - `difference`, `ci_low`, `ci_high`: mean of the first method minus the second with its interval, in percentage
          points or in the unit of a distance. NaN if not measured; with one seed only the interval is NaN.
        - `level`: confidence level of the interval, in (0, 1).
        - `n_seeds`, `n_images`: numbers of shared seeds and of test images.
        - `seeds_needed`: for an inconclusive claim the number of seeds that would decide it, or a text with the reason
          why there is no number; else "".
        - `published`, `mark`, `source`: the same difference in a paper, in points, its reliability (a key of
          `reference.published.MARKS`) and its origin. NaN if no paper has both numbers.
        - `paper`: what the paper claims, from the experiment file; "" if nothing.
        - `scale`: dataset, test images, student, protocol and seeds, as text.
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
    """Returns claims.csv as a Markdown table with a caption above and the papers' statements and sources below.

    Args:
        table: as `judged` returns it, with the columns `claim`, `text`, `teacher`, `student`, `verdict`, `difference`,
            `ci_low`, `ci_high`, `seeds_needed`, `published`, `mark`, `source`, `paper` and `scale`. If it is empty,
            only a sentence is returned.
        spec: name of the experiment and threat model, for the caption.
    """
    if table.empty:
        return f"{NONE}\n"
    aligned = ["left"] * 4 + ["right"] * 3 + ["left"]
    grid = tabulate([_cells(row) for row in table.itertuples()], HEAD, "pipe", disable_numparse=True, colalign=aligned)
    parts = [_caption(table, spec), grid]
    if lines := _legend(table):
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def latex(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns claims.csv as a LaTeX table that may run over pages (packages longtable and booktabs).

    Args:
        table: as `judged` returns it, with the columns `claim`, `text`, `teacher`, `student`, `verdict`, `difference`,
            `ci_low`, `ci_high`, `seeds_needed`, `published`, `mark`, `source`, `paper` and `scale`. If it is empty,
            only a sentence is returned.
        spec: name of the experiment and threat model, for the caption.
    """
    if table.empty:
        return f"{formats.escaped(NONE)}\n"
    rows = [_cells(row) for row in table.itertuples()]
    columns = r"p{0.2\textwidth}lllrrrp{0.2\textwidth}"
    made = formats.longtable(_caption(table, spec), HEAD, rows, columns)
    lines = " ".join(map(formats.escaped, _legend(table)))
    return f"{made}\n{{\\footnotesize {lines}\\par}}\n" if lines else made


def write_tables(table: pd.DataFrame, spec: TableSpec, folder: Path) -> list[Path]:
    """Writes FOLDER/claims.{csv,md,tex}, and returns their paths in this order.

    Args:
        table: verdicts on claims, as `judged` returns them, with the columns of claims.csv.
        spec: name of the experiment and threat model, for the caption.
        folder: folder of the tables.
    """
    return formats.write(folder / "claims", table, markdown(table, spec), latex(table, spec))
