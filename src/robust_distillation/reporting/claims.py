"""Tests the experiment's claims on the results: one verdict per claim and comparison, beside the papers' own numbers.

A claim is a statement of the experiment file such as `rslad > ard on autoattack`. A comparison is a student with a
teacher, or with none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from robust_distillation import metrics
from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, NO_TEACHER, SEED, STUDENT, TEACHER
from robust_distillation.comparison import Comparison
from robust_distillation.config import Claim, Experiment, claims_of, comparison_settings, parse_statement
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.reference import published
from robust_distillation.reporting import comparisons, formats
from robust_distillation.reporting.references import references
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.statistics import verdicts
from robust_distillation.statistics.comparing import Outcomes, paired
from robust_distillation.statistics.estimates import Estimate, SeedEstimate
from robust_distillation.statistics.intervals import ALPHA, holm

COLUMNS = [
    "claim", "text", TEACHER, STUDENT, "verdict", "difference", "ci_low", "ci_high", "level", "n_seeds", "n_images",
    "seeds_needed", "published", "mark", "source", "paper", "scale",
]  # fmt: skip
HEAD = ["claim", TEACHER, STUDENT, "verdict", "difference", "simultaneous interval", "published", "seeds needed"]
STRUCTURE = "structure"
NONE = "The experiment makes no claims."
NO_SEED = "no seed that both have"


class Evidence:
    """Measurements by which claims are tested: outcomes on test images, and distances of the structure analysis.

    A claim is a sentence of the experiment file that compares two distillation methods, such as `rslad > ard on
    autoattack`. `Evidence.of` reads the measurements from files.

    Attributes:
        outcomes: name of an analysis to a `statistics.comparing.Outcomes`. The name is "" for the experiment's test
            images and `transfer-TARGET`, such as `transfer-parity`, for those of another dataset. The field `models` of
            an `Outcomes` maps (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), to
            the outcomes of the S seeds on the N test images: among others `correct`, bool arrays [S,N] for `clean` and
            each attack.
        distances: distances of the structure analysis, as `reporting.structure.distances` returns them, with the
            columns `teacher`, `student`, `method`, `checkpoint`, `seed`, `n_images`, `metric` and `value`. None if no
            claim is about them.
    """

    def __init__(self, outcomes: Mapping[str, Outcomes], distances: pd.DataFrame | None = None):
        """Stores the measurements.

        Args:
            outcomes: name of an analysis ("" for the experiment's test images, or `transfer-TARGET`) to `Outcomes`, as
                `Outcomes.of(read_outcomes(files))` returns it. Its field `models` maps (teacher, student, method,
                checkpoint), such as ("wide", "small", "rslad", "best"), to the outcomes of all seeds.
            distances: table as `reporting.structure.distances` returns it. None if no claim is about the structure
                analysis.
        """
        self.outcomes, self.distances = outcomes, distances

    @classmethod
    def of(cls, files: Mapping[str, list[Path]], spec: TableSpec) -> Evidence:
        """Reads the measurements from the files that earlier steps wrote.

        Args:
            files: name of an analysis to its files, one per trained network, for example `{"": [...], "structure":
                [...], "transfer-parity": [...]}`, as `pipeline.steps.Compare(experiment).evidence` returns them. The
                key "" stands for the experiment's test images. The files of `structure` are JSON. All others are
                outcomes (Parquet), such as results/digits/outcomes/students/wide/small/rslad/seed-0.parquet.
            spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
                config.load("params.yaml")`. Used are its `comparisons` (pairs of teacher and student): for each pair,
                the distances between this teacher and this student are computed.

        Returns:
            The measurements. `distances` is None if `files` has no key `structure`.

        Raises:
            UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
                teacher, were not attacked on the same images.
            CorruptFileError: if a file of `structure` is not JSON.
            FileNotFoundError: if a file of `structure` is missing.
        """
        distances = None
        if STRUCTURE in files:
            from robust_distillation.reporting import structure  # imports torch

            distances = structure.distances(structure.read_structures(files[STRUCTURE]), spec)
        outcomes = {name: Outcomes.of(read_outcomes(group)) for name, group in files.items() if name != STRUCTURE}
        return cls(outcomes, distances)

    def estimate(self, claim: Claim, comparison: Comparison, methods: Sequence[str]) -> Estimate | SeedEstimate | str:
        """Estimates the difference between the two methods of a claim in the metric of the claim.

        For each of the two methods, the students that it distilled from the teacher `comparison.teacher` are used. If
        it has none, the students that it trained without a teacher are used.

        Args:
            claim: the parsed sentence of the experiment file, such as `rslad > ard on autoattack`, as
                `config.claims_of(experiment)` returns it in a list. Its `statement` has `method` and `other` (names of
                the two methods), `analysis`, `metric` and `checkpoint`.
            comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
                student="small")`.
            methods: names of the methods that share what is known of the variance over seeds.

        Returns:
            Value of the first method less value of the second, on the seeds that both methods have: for a distance of
            the structure analysis a `SeedEstimate`, else an `Estimate`, in which percentages are fractions. If there is
            nothing to compare, a text with the reason, such as `no run of rslad` or `no seed that both have`.

        Raises:
            UserError: if the outcomes lack a column that the metric needs.
        """
        about = claim.statement
        pair = (about.method, about.other)
        if about.analysis == STRUCTURE:
            first, second = (self._distances(claim, comparison, method) for method in pair)
            both = first.index.intersection(second.index)
            return SeedEstimate((first[both] - second[both]).to_numpy()) if len(both) else NO_SEED
        outcomes = self.outcomes[about.analysis]
        models = {method: outcomes.find(comparison, method, about.checkpoint) for method in pair}
        if missing := [method for method, model in models.items() if model is None]:
            return f"no run of {' and '.join(missing)}"
        if undefined := [method for method, model in models.items() if model.measured(about.metric) is None]:
            return f"{about.metric} is not defined for {' and '.join(undefined)}"
        found = paired(*models.values(), about.metric)
        if found is None:
            return NO_SEED
        shared = outcomes.shared_seeds(comparison, dict.fromkeys([*methods, *pair]), about.checkpoint, about.metric)
        return Estimate.of(found, shared, *pair)

    def _distances(self, claim: Claim, comparison: Comparison, method: str) -> pd.Series:
        """Returns the distances of a method by seed."""
        values = {
            TEACHER: comparison.teacher, STUDENT: comparison.student, METHOD: method,
            METRIC: claim.statement.metric, CHECKPOINT: claim.statement.checkpoint,
        }  # fmt: skip
        rows = self.distances
        return rows[(rows[list(values)] == list(values.values())).all(axis=1)].set_index(SEED)["value"]

    def images(self, estimate: Estimate | SeedEstimate) -> int:
        """Returns the number of test images from which a difference was measured.

        Args:
            estimate: the difference as `estimate` returns it. A text is not allowed.
        """
        return estimate.images if isinstance(estimate, Estimate) else int(self.distances["n_images"].iloc[0])


def write(experiment: Experiment, files: Mapping[str, list[Path]], folder: Path) -> None:
    """Compares methods, tests the claims of the experiment file, and writes two tables of the results.

    The files are FOLDER/comparisons.{csv,md,tex}, the differences between methods, and
    FOLDER/claims.{csv,md,tex}, one verdict (supported, refuted or inconclusive) per claim, teacher and student. A claim
    is a sentence such as `rslad > ard on autoattack`.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            Used are its claims (entry `claims`) and the order of the rows.
        files: name of an analysis to its files, one per trained network, as
            `pipeline.steps.Compare(experiment).evidence` returns them: "" for the outcomes on the experiment's test
            images and, if claims are about them, `structure` and `transfer-TARGET`, such as `transfer-parity`.
        folder: folder of the tables, such as results/digits/tables. It is created if it does not exist.

    Raises:
        UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
            teacher, were not attacked on the same images.
    """
    spec = TableSpec(**experiment.matrix())
    evidence = Evidence.of(files, spec)
    comparisons.write_tables(comparisons.tidy(evidence.outcomes[""], spec, references(experiment)), spec, folder)
    scale = comparison_settings(experiment)["scale"]
    write_tables(judged(claims_of(experiment), evidence, spec, scale), spec, folder)


def judged(claims: list[Claim], evidence: Evidence, spec: TableSpec, scale: dict[str, Any]) -> pd.DataFrame:
    """Tests claims on the measurements: one verdict for each claim, teacher and student.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack by 1`. It states that one
    distillation method is above or below another in a metric, by more than a margin (0 if it names none). A difference
    of accuracies is paired by seed and image. The half length of its interval is the longest of three
    (`statistics.intervals.half_width`): Student's t over the means of the seeds, Student's t with the variance
    components of seeds and images (Satterthwaite's degrees of freedom), and an exact binomial bound (no error in N
    images). The variance over seeds is shared by all methods of the same teacher and student (`statistics.sharing`). So
    the interval covers training with other seeds and testing on other images. The interval of a difference of distances
    is Student's t over the S seeds (S - 1 degrees of freedom). Each has the confidence level 1 - 0.05 / (number of
    rows), so that all intervals together cover with at least 95 % (Bonferroni). The p values are adjusted for the
    number of rows by Holm's method. A claim with an adjusted p value below 0.05 is `supported` if the difference lies
    on the claimed side of the margin, else `refuted`. All others are `inconclusive`, as are claims with fewer than two
    seeds.

    Args:
        claims: the parsed claims in the order of the rows, as `config.claims_of(experiment)` returns them. Each has
            `name`, `text`, `statement` (names of the methods, sign, metric, checkpoint and margin), `comparisons`
            (pairs of teacher and student for which it is tested) and `paper`.
        evidence: the outcomes and distances, as `Evidence.of` returns them.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `published` and `published_as`, which select the published numbers
            beside the differences.
        scale: texts for the column `scale`, `config.comparison_settings(experiment)["scale"]`: `datasets` (name of an
            analysis to name of its dataset, such as `{"": "digits"}`), `students` (such as `{"small": "small (convnet,
            width 8)"}`) and `protocol` (`controlled` or `official`).

    Returns:
        The content of claims.csv, with one row per claim, teacher and student. Empty without claims. Columns:

        - `claim`, `text`: name of the claim in the experiment file, such as `rslad-ard`, and its sentence.
        - `teacher`, `student`: names of the teacher and the student. The teacher is `none` if neither method has one.
        - `verdict`: `supported`, `refuted` or `inconclusive`.
        - `difference`, `ci_low`, `ci_high`: mean of the first method minus mean of the second, with its interval, in
          percentage points or in the unit of a distance. NaN if not measured; with one seed only the interval is NaN.
        - `level`: confidence level of the interval, in (0, 1).
        - `n_seeds`, `n_images`: number of seeds that both methods have, and of test images.
        - `seeds_needed`: for an inconclusive claim the number of seeds that would decide it with a probability of 80 %
          if the difference is as estimated, or a text with the reason why there is no number; else "".
        - `published`, `mark`, `source`: the same difference between two numbers of one paper, in points; its
          reliability (`P`, `C`, `S` or `R`, the keys of `reference.published.MARKS`); and where the numbers were found.
          NaN if no paper has both numbers.
        - `paper`: what the paper claims in words, from the experiment file; "" if nothing.
        - `scale`: dataset, test images, student, protocol and seeds, as text.
    """
    pairs = [(claim, comparison) for claim in claims for comparison in claim.comparisons]
    found = [evidence.estimate(*pair, spec.methods) for pair in pairs]
    adjusted = holm([_p_value(claim, estimate) for (claim, _), estimate in zip(pairs, found, strict=True)])
    rows = [
        _judged(*pair, estimate, p, ALPHA / len(pairs), evidence) | _published(*pair, evidence, spec)
        for pair, estimate, p in zip(pairs, found, adjusted, strict=True)
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS[:-1], "analysis"])
    table["scale"] = [_scale(row, scale) for row in table.itertuples()]
    return table[COLUMNS]


def _unit(claim: Claim) -> tuple[float, float]:
    """Returns by how much an estimate is multiplied for the table, and the largest difference that it can have."""
    if claim.statement.analysis == STRUCTURE:
        return 1, math.inf
    metric = metrics.get(claim.statement.metric)
    return metric.scale, 1 if metric.unit == "percent" else math.inf


def _p_value(claim: Claim, estimate: Estimate | SeedEstimate | str) -> float:
    """Returns the p value of a difference as large as the claim's margin; NaN where there is none."""
    if isinstance(estimate, str) or estimate.seeds < 2:
        return math.nan
    return estimate.p_value(claim.statement.threshold / _unit(claim)[0])


def _judged(
    claim: Claim, comparison: Comparison, found: Estimate | SeedEstimate | str, p: float, alpha: float,
    evidence: Evidence,
) -> dict[str, Any]:  # fmt: skip
    about = claim.statement
    row = {
        "claim": claim.name, "text": claim.text, **comparison._asdict(), "paper": claim.paper,
        "analysis": about.analysis, "verdict": verdicts.INCONCLUSIVE, "level": round(1 - alpha, 6),
    }  # fmt: skip
    if isinstance(found, str):
        return row | {"n_seeds": 0, "seeds_needed": found}
    unit, bound = _unit(claim)
    threshold = about.threshold / unit
    row |= {"difference": _rounded(unit * found.mean), "n_seeds": found.seeds, "n_images": evidence.images(found)}
    if found.seeds < 2:
        return row | {"seeds_needed": "at least 2: one seed says nothing of others"}
    low, high = np.clip(found.interval(alpha, p, threshold), -bound, bound)
    reached = verdicts.verdict(found, about.sign, threshold, p)
    needed = verdicts.seeds_needed(found, threshold, alpha) if reached == verdicts.INCONCLUSIVE else ""
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
        distilled = (*comparison, method, about.checkpoint) in outcomes.models
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
    digits = 2 if in_points(row) else 3
    difference = "" if pd.isna(row.difference) else f"{row.difference:+.{digits}f}"
    interval = "" if pd.isna(row.ci_low) else f"{row.ci_low:+.{digits}f} to {row.ci_high:+.{digits}f}"
    printed = "" if pd.isna(row.published) else f"{row.published:+.2f} {row.mark}"
    return [row.text, row.teacher, row.student, row.verdict, difference, interval, printed, str(row.seeds_needed)]


def in_points(row: Any) -> bool:
    """Tells whether the difference of a row of claims.csv is in percentage points; else it is in the metric's unit.

    Args:
        row: a row of claims.csv as a named tuple of `DataFrame.itertuples()`. Used is the field `text`, the sentence of
            the claim, such as `rslad > ard on autoattack`. A metric in percent, such as an accuracy, gives True. A
            distance of the structure analysis, or a metric that is a fraction, gives False.
    """
    metric = parse_statement(row.text)
    return metric.analysis != STRUCTURE and metrics.get(metric.metric).unit == "percent"


def _caption(table: pd.DataFrame, spec: TableSpec) -> str:
    counted = Counter(table["verdict"])
    found = ", ".join(
        f"{counted[name]} {name}" for name in (verdicts.SUPPORTED, verdicts.REFUTED, verdicts.INCONCLUSIVE)
    )
    return (
        f"{spec.experiment}: claims, {spec.attacked}. {found}. Differences are the first method less the second, "
        f"in points or in the metric's own unit; all intervals hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni over {len(table)}; verdicts by Holm's p), for other seeds and other test images, at this scale: "
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
    """Returns the verdicts on claims as Markdown: a caption, a table, and a list of the papers' statements and sources.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`. Texts are written as they are,
    without escaping.

    Args:
        table: the content of claims.csv, as `reporting.claims.judged` returns it, with the columns `claim`, `text`,
            `teacher`, `student`, `verdict`, `difference`, `ci_low`, `ci_high`, `seeds_needed`, `published`, `mark`,
            `source`, `paper` and `scale`. If it is empty, the result is the sentence `The experiment makes no claims.`
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment and the threat model, for the caption.
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
    """Returns the verdicts on claims as a LaTeX table that may run over pages (packages longtable and booktabs).

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`. The papers' statements and sources
    follow below the table in small type. Special characters are escaped here.

    Args:
        table: the content of claims.csv, as `reporting.claims.judged` returns it, with the columns `claim`, `text`,
            `teacher`, `student`, `verdict`, `difference`, `ci_low`, `ci_high`, `seeds_needed`, `published`, `mark`,
            `source`, `paper` and `scale`. If it is empty, the result is the sentence `The experiment makes no claims.`
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment and the threat model, for the caption.
    """
    if table.empty:
        return f"{formats.escaped(NONE)}\n"
    rows = [_cells(row) for row in table.itertuples()]
    columns = r"p{0.2\textwidth}lllrrrp{0.2\textwidth}"
    made = formats.longtable(_caption(table, spec), HEAD, rows, columns)
    lines = " ".join(map(formats.escaped, _legend(table)))
    return f"{made}\n{{\\footnotesize {lines}\\par}}\n" if lines else made


def write_tables(table: pd.DataFrame, spec: TableSpec, folder: Path) -> list[Path]:
    """Writes the verdicts on claims as FOLDER/claims.csv, FOLDER/claims.md and FOLDER/claims.tex.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`; a verdict is `supported`,
    `refuted` or `inconclusive`.

    Args:
        table: the content of claims.csv, as `reporting.claims.judged` returns it.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment and the threat model, for the caption.
        folder: folder of the tables, such as results/digits/tables. It is created if it does not exist.

    Returns:
        The three paths, in this order.
    """
    return formats.write(folder / "claims", table, markdown(table, spec), latex(table, spec))
