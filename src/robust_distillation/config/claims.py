"""Claims: sentences such as `rslad > ard on autoattack at best`, what they speak of, and whom they cover."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from robust_distillation.columns import NO_TEACHER
from robust_distillation.comparison import Comparison
from robust_distillation.config.experiment import Experiment
from robust_distillation.config.schema import ClaimEntry, ExperimentFile
from robust_distillation.errors import UserError, shown, unknown

FORM = "A > B on METRIC, or A < B on METRIC, then `at best` or `at last`, then `by X`, where wanted"
SENTENCE = re.compile(
    r"\s*(?P<method>\S+)\s*(?P<sign>[<>])\s*(?P<other>\S+)\s+on\s+(?P<metric>\S+)"
    r"(?:\s+at\s+(?P<checkpoint>\S+))?(?:\s+by\s+(?P<margin>\S+))?\s*"
)
MARGIN = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,6})?")
STRUCTURE = "structure"
STRUCTURES = (
    "correlation_distance",
    "adversarial_correlation_distance",
    "feature_distance",
    "feature_cosine_distance",
)


class Statement(NamedTuple):
    """`method` lies above (sign >) or below (<) `other` by more than `margin`, in the unit of the metric: points, or
    that of a distance."""

    method: str
    sign: str
    other: str
    analysis: str  # "" for the experiment's own test images, structure, or transfer-TARGET
    metric: str
    checkpoint: str | None  # the first of the evaluation where not given
    margin: float

    @property
    def threshold(self) -> float:
        """What method less other must lie above or below."""
        return self.margin if self.sign == ">" else 0.0 - self.margin


@dataclass(frozen=True)
class Claim:
    """A claim of an experiment, for every teacher and student that it covers."""

    name: str
    text: str
    statement: Statement
    comparisons: tuple[Comparison, ...]  # without a teacher where neither method has one
    paper: str

    def resolved(self) -> dict[str, Any]:
        return {**asdict(self), "statement": self.statement._asdict()}


def statement_of(text: str) -> Statement:
    """Raises UserError where it is not of the FORM."""
    found = SENTENCE.fullmatch(text)
    if not found:
        raise UserError(f"is not of the form {FORM}, found {shown(text)}")
    margin, metric = found["margin"] or "0", found["metric"]
    if not MARGIN.fullmatch(margin):
        raise UserError(f"by: is not a number such as 1, 0.5 or -1: {shown(margin)}")
    analysis, dot, of = metric.rpartition(".")
    if not dot or not (analysis == STRUCTURE or analysis.startswith("transfer-")):
        analysis, of = "", metric
    return Statement(found["method"], found["sign"], found["other"], analysis, of, found["checkpoint"], float(margin))


def claims_of(experiment: Experiment) -> list[Claim]:
    """In the order of the file."""
    found = []
    for name, entry in experiment.file.claims.items():
        statement = statement_of(entry.claim)
        statement = statement._replace(checkpoint=statement.checkpoint or experiment.evaluation.checkpoints[0])
        text, paper = " ".join(entry.claim.split()), " ".join(entry.paper.split())
        found.append(Claim(name, text, statement, _comparisons(experiment, statement, entry), paper))
    return found


def _comparisons(experiment: Experiment, statement: Statement, entry: ClaimEntry) -> tuple[Comparison, ...]:
    """Returns the comparisons in which both methods have runs.

    Two methods that need no teacher are compared once for a student, except in their distance to a teacher.
    """
    runs = {(run.teacher, run.student, run.method) for run in experiment.runs}
    named = (statement.method, statement.other)
    taught = any(experiment.methods[method].has_teacher for method in named) or statement.analysis == STRUCTURE
    comparisons = [
        Comparison(teacher if taught else NO_TEACHER, student)
        for teacher, student in experiment.comparisons
        if (entry.teachers is None or teacher in entry.teachers)
        and (entry.students is None or student in entry.students)
        and all({(teacher, student, method), (NO_TEACHER, student, method)} & runs for method in named)
    ]
    return tuple(dict.fromkeys(comparisons))


def comparison_settings(experiment: Experiment) -> dict[str, Any]:
    """What the comparisons and the claims depend on besides outcomes: a rule's params, a record's settings."""
    claims = claims_of(experiment)
    targets = {name: transfer.dataset.name for name, transfer in experiment.file.transfer.items()}
    datasets = {"": experiment.dataset.name, STRUCTURE: experiment.dataset.name}
    return {
        "matrix": experiment.matrix(),
        "claims": [claim.resolved() for claim in claims],
        "scale": {
            "datasets": datasets | {f"transfer-{name}": dataset for name, dataset in targets.items()},
            "students": {name: _architecture(name, settings) for name, settings in experiment.students.items()},
            "protocol": experiment.file.protocol,
        },
    }


def _architecture(name: str, settings: dict[str, Any]) -> str:
    """small (convnet, width 8)."""
    arguments = [f"{key} {value}" for key, value in settings.items() if key != "name"]
    return f"{name} ({', '.join([settings['name'], *arguments])})"


def check_claims(file: ExperimentFile, problems: list[str]) -> None:
    """The names in claims against those of the experiment."""
    for name, entry in file.claims.items():
        where = f"claims.{name}"
        for key, known in (("teacher", [*file.teachers, NO_TEACHER]), ("student", [*file.students])):
            chosen = getattr(entry, f"{key}s")
            if chosen == []:
                problems.append(f"{where}.{key}s: is empty: name at least one {key}, or leave it out")
            problems += [f"{where}.{key}s: {unknown(key, n, known)}" for n in chosen or [] if n not in known]
        try:
            statement = statement_of(entry.claim)
        except UserError as error:
            problems.append(f"{where}: {error}")
            continue
        problems += [f"{where}: {problem}" for problem in _wrong(statement, file)]


def _wrong(statement: Statement, file: ExperimentFile) -> list[str]:
    found = [
        unknown("method", name, file.methods)
        for name in (statement.method, statement.other)
        if name not in file.methods
    ]
    if statement.method == statement.other:
        found.append(f"compares {statement.method} with itself")
    checkpoints = file.evaluation.checkpoints
    if statement.checkpoint is not None and statement.checkpoint not in checkpoints:
        found.append(unknown("checkpoint", statement.checkpoint, checkpoints))
    elif statement.analysis and statement.checkpoint not in (None, checkpoints[0]):
        kind = statement.analysis.partition("-")[0]
        found.append(f"{kind} is measured at the first of evaluation.checkpoints, {checkpoints[0]}: leave out `at`")
    allowed = metrics_of(file)
    metric = f"{statement.analysis}.{statement.metric}" if statement.analysis else statement.metric
    if metric not in allowed:
        found.append(unknown("metric", metric, allowed))
    return found


def metrics_of(file: ExperimentFile) -> list[str]:
    """All that a claim of this experiment may be about."""
    structures = [f"{STRUCTURE}.{name}" for name in STRUCTURES] if file.structure else []
    transfers = [
        f"transfer-{target}.{metric}"
        for target, settings in file.transfer.items()
        for metric in ("clean", *settings.attacks)
    ]
    return ["clean", *file.evaluation.attacks, *structures, *transfers]
