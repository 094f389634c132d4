"""Parses the claims of an experiment and finds the teachers and students that each covers.

A claim is a sentence such as `rslad > ard on autoattack at best by 1`: the method rslad has a higher accuracy under
AutoAttack than the method ard, by more than one percentage point, at the checkpoint `best`. The tables give each claim
a verdict, see `statistics.verdicts`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from robust_distillation.columns import NO_TEACHER
from robust_distillation.comparison import Comparison
from robust_distillation.config.checking import compares_with_teacher, further_metrics, unknown_metric
from robust_distillation.config.experiment import Experiment
from robust_distillation.config.schema import ClaimEntry, ExperimentFile
from robust_distillation.errors import UserError, short_repr, unknown

FORM = "A > B on METRIC, or A < B on METRIC, then `at best` or `at last`, then `by X`, where wanted"
SENTENCE = re.compile(
    r"\s*(?P<method>\S+)\s*(?P<sign>[<>])\s*(?P<other>\S+)\s+on\s+(?P<metric>\S+)"
    r"(?:\s+at\s+(?P<checkpoint>\S+))?(?:\s+by\s+(?P<margin>\S+))?\s*"
)
MARGIN = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,6})?")
STRUCTURE = "structure"  # the analysis of class correlations and feature distances
STRUCTURE_METRICS = (
    "correlation_distance",
    "adversarial_correlation_distance",
    "feature_distance",
    "feature_cosine_distance",
)


class Statement(NamedTuple):
    """A parsed claim: one method exceeds another one, or stays below it, in a metric by more than a margin.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`, judged by the results.
    `parse_statement` makes the object from the sentence.

    Attributes:
        method: name of the first distillation or training method, as in the experiment file, such as "rslad".
        sign: `>` (method is above other) or `<` (method is below other).
        other: name of the second method, such as "ard".
        analysis: what the metric is measured on: "" for the experiment's test images, `structure` for the analysis of
            class correlations and feature distances, or `transfer-TARGET` for the test images of a transfer dataset.
        metric: `clean`, the name of an attack, METRIC.ATTACK for a metric beside accuracy, or a distance of the
            structure analysis, such as `feature_distance`.
        checkpoint: `best` or `last`. None: the first of `evaluation.checkpoints`.
        margin: in the unit of the metric: percentage points for percentages. It may be negative.
    """

    method: str
    sign: str
    other: str
    analysis: str
    metric: str
    checkpoint: str | None
    margin: float

    @property
    def threshold(self) -> float:
        """The bound above (sign `>`) or below (sign `<`) which method minus other must lie.

        It is `margin` for `>` and -`margin` for `<`.
        """
        return self.margin if self.sign == ">" else 0.0 - self.margin


@dataclass(frozen=True)
class Claim:
    """A sentence of the experiment file such as `rslad > ard on autoattack`, judged by the results.

    It is tested once for each pair of a teacher and a student that it covers. `claims_of` lists the claims of an
    experiment.

    Attributes:
        name: its key under `claims` in the experiment file.
        text: the sentence as it stands in the experiment file, such as "rslad > ard on autoattack".
        statement: the parsed sentence: `method`, `sign` (`>` or `<`), `other`, `analysis`, `metric`, `checkpoint`
            (never None here) and `margin`.
        comparisons: the pairs of a teacher and a student network for which it is tested, named tuples such as
            `Comparison("wide", "small")`. The teacher is `none` if neither method has one.
        paper: what the paper printed, as text; "" if nothing.
    """

    name: str
    text: str
    statement: Statement
    comparisons: tuple[Comparison, ...]
    paper: str

    def resolved(self) -> dict[str, Any]:
        """Returns the claim as a dict that can be written as JSON, with the names of the fields as keys."""
        return {**asdict(self), "statement": self.statement._asdict()}


def parse_statement(text: str) -> Statement:
    """Parses the sentence of a claim.

    The form is `A > B on METRIC [at best|last] [by X]`, with `>` or `<`. METRIC is `clean`, the name of an attack, or a
    metric of another analysis, such as `structure.feature_distance` or `transfer-parity.clean`. X is a number in the
    unit of the metric: percentage points for accuracies.

    Args:
        text: the sentence, such as `rslad > ard on autoattack at best by 1`.

    Returns:
        The statement, for the example `Statement("rslad", ">", "ard", "", "autoattack", "best", 1.0)`. Without `at` its
        checkpoint is None, and without `by` its margin is 0. The names are not checked.

    Raises:
        UserError: if the sentence does not have this form.
    """
    match = SENTENCE.fullmatch(text)
    if not match:
        raise UserError(f"is not of the form {FORM}, found {short_repr(text)}")
    margin, metric = match["margin"] or "0", match["metric"]
    if not MARGIN.fullmatch(margin):
        raise UserError(f"by: is not a number such as 1, 0.5 or -1: {short_repr(margin)}")
    analysis, dot, name = metric.rpartition(".")
    if not dot or not (analysis == STRUCTURE or analysis.startswith("transfer-")):
        analysis, name = "", metric
    return Statement(match["method"], match["sign"], match["other"], analysis, name, match["checkpoint"], float(margin))


def claims_of(experiment: Experiment) -> list[Claim]:
    """Returns the claims of an experiment, each with the teachers and students for which it is tested.

    A claim is a sentence under `claims` in the experiment file, such as `rslad > ard on autoattack at best by 1`. It is
    tested for each pair of a teacher and a student for which both of its methods have trainings, unless the entry names
    fewer teachers or students.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Returns:
        The claims in the order of the experiment file; empty if it has none. Each has the fields `name`, `text` (the
        sentence), `statement` (the parsed sentence), `comparisons` (pairs of a teacher and a student, such as
        `Comparison("wide", "small")`) and `paper`.
    """
    claims = []
    for name, entry in experiment.file.claims.items():
        statement = parse_statement(entry.claim)
        statement = statement._replace(checkpoint=statement.checkpoint or experiment.evaluation.checkpoints[0])
        text, paper = " ".join(entry.claim.split()), " ".join(entry.paper.split())
        claims.append(Claim(name, text, statement, _comparisons(experiment, statement, entry), paper))
    return claims


def _comparisons(experiment: Experiment, statement: Statement, entry: ClaimEntry) -> tuple[Comparison, ...]:
    """Returns the comparisons of a claim: those in which both of its methods have runs.

    Two methods that need no teacher are compared once per student, under the teacher `none`. In a distance to a
    teacher they are compared once per teacher and student.
    """
    runs = {(run.teacher, run.student, run.method) for run in experiment.runs}
    both = (statement.method, statement.other)
    taught = any(experiment.methods[method].has_teacher for method in both) or statement.analysis == STRUCTURE
    comparisons = [
        Comparison(teacher if taught else NO_TEACHER, student)
        for teacher, student in experiment.comparisons
        if (entry.teachers is None or teacher in entry.teachers)
        and (entry.students is None or student in entry.students)
        and all({(teacher, student, method), (NO_TEACHER, student, method)} & runs for method in both)
    ]
    return tuple(dict.fromkeys(comparisons))


def without_teacher(experiment: Experiment) -> list[str]:
    """Finds metrics and claims that compare a student with its teacher, where it does not have exactly one.

    The names under `evaluation.metrics` and the claims are checked. A claim is a sentence of the experiment file such
    as `rslad > ard on agreement.autoattack`, judged by the results. A metric such as `agreement` compares a student
    with its teacher; a method without a teacher, or with several, has no such value.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            Its claims must have the right form.

    Returns:
        One message per mistake, such as "evaluation.metrics: agreement.clean compares a student with its teacher, but
        no student has exactly one"; empty if there is none.
    """
    single = {(run.teacher, run.student, run.method) for run in experiment.runs if run.teacher in experiment.teachers}
    problems = [
        f"evaluation.metrics: {name} compares a student with its teacher, but no student has exactly one"
        for name in experiment.evaluation.metrics
        if compares_with_teacher(name) and not single
    ]
    for claim in claims_of(experiment):
        about = claim.statement
        if about.analysis or not compares_with_teacher(about.metric):
            continue
        for method in (about.method, about.other):
            if any((*comparison, method) not in single for comparison in claim.comparisons):
                problems.append(
                    f"claims.{claim.name}: {about.metric} compares a student with its teacher, but those of {method} "
                    "do not have exactly one"
                )
    return problems


def comparison_settings(experiment: Experiment) -> dict[str, Any]:
    """Returns the settings that the tables of comparisons and claims depend on, apart from the outcomes.

    They are the `params` of the Snakemake rule that makes the tables of comparisons and claims, and the `settings` of
    its record (the JSON file beside the tables: inputs, settings, code hash and hashes of the tables). A change of them
    makes Snakemake compute these tables again.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Returns:
        A dict of JSON values with four keys. `compare_to` is that of the experiment file. `matrix` has names and order
        of teachers, students, methods, checkpoints and metrics, as `Experiment.matrix` returns them. `claims` is a list
        with one dict per claim (a sentence of the experiment file such as `rslad > ard on autoattack`), as
        `Claim.resolved` returns it. `scale` has what the table of claims prints: `datasets`, such as `{"": "cifar10",
        "structure": "cifar10", "transfer-parity": "digits_parity"}`, the dataset of each analysis, with "" for the
        experiment's own test images; `students`, such as `{"small": "small (convnet, width 8)"}`; and `protocol`.
    """
    claims = claims_of(experiment)
    targets = {name: transfer.dataset.name for name, transfer in experiment.file.transfer.items()}
    datasets = {"": experiment.dataset.name, STRUCTURE: experiment.dataset.name}
    return {
        "compare_to": experiment.file.compare_to,
        "matrix": experiment.matrix(),
        "claims": [claim.resolved() for claim in claims],
        "scale": {
            "datasets": datasets | {f"transfer-{name}": dataset for name, dataset in targets.items()},
            "students": {name: _architecture(name, settings) for name, settings in experiment.students.items()},
            "protocol": experiment.file.protocol,
        },
    }


def _architecture(name: str, settings: dict[str, Any]) -> str:
    """Describes a student as `small (convnet, width 8)`."""
    arguments = [f"{key} {value}" for key, value in settings.items() if key != "name"]
    return f"{name} ({', '.join([settings['name'], *arguments])})"


def check_claims(file: ExperimentFile, problems: list[str]) -> None:
    """Checks that claims have the right form and that the methods, metrics and names in them exist.

    A claim is a sentence under `claims` in the experiment file, such as `rslad > ard on autoattack at best by 1`,
    judged by the results.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`).
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.
    """
    for name, entry in file.claims.items():
        where = f"claims.{name}"
        for key, allowed in (("teacher", [*file.teachers, NO_TEACHER]), ("student", [*file.students])):
            names = getattr(entry, f"{key}s")
            if names == []:
                problems.append(f"{where}.{key}s: is empty: name at least one {key}, or leave it out")
            problems += [f"{where}.{key}s: {unknown(key, n, allowed)}" for n in names or [] if n not in allowed]
        try:
            statement = parse_statement(entry.claim)
        except UserError as error:
            problems.append(f"{where}: {error}")
            continue
        problems += [f"{where}: {problem}" for problem in _problems(statement, file)]


def _problems(statement: Statement, file: ExperimentFile) -> list[str]:
    problems = [
        unknown("method", name, file.methods)
        for name in (statement.method, statement.other)
        if name not in file.methods
    ]
    if statement.method == statement.other:
        problems.append(f"compares {statement.method} with itself")
    checkpoints = file.evaluation.checkpoints
    if statement.checkpoint is not None and statement.checkpoint not in checkpoints:
        problems.append(unknown("checkpoint", statement.checkpoint, checkpoints))
    elif statement.analysis and statement.checkpoint not in (None, checkpoints[0]):
        kind = statement.analysis.partition("-")[0]
        problems.append(f"{kind} is measured at the first of evaluation.checkpoints, {checkpoints[0]}: leave out `at`")
    allowed = metrics_of(file)
    metric = f"{statement.analysis}.{statement.metric}" if statement.analysis else statement.metric
    if metric not in allowed:
        problems.append(unknown_metric(metric, allowed))
    return problems


def metrics_of(file: ExperimentFile) -> list[str]:
    """Lists every metric that a claim (a sentence such as `rslad > ard on autoattack`) may name.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`).

    Returns:
        Names such as ["clean", "pgd20", "worst_class.pgd20", "structure.feature_distance", "transfer-parity.clean"]:
        accuracies, METRIC.ATTACK, and the metrics of the analyses that the file asks for.
    """
    structures = [f"{STRUCTURE}.{name}" for name in STRUCTURE_METRICS] if file.structure else []
    transfers = [
        f"transfer-{target}.{metric}"
        for target, settings in file.transfer.items()
        for metric in ("clean", *settings.attacks)
    ]
    return ["clean", *file.evaluation.attacks, *further_metrics(file.evaluation.attacks), *structures, *transfers]
