"""The first section: the experiment's settings, and the most important results."""

from __future__ import annotations

from robust_distillation.columns import METHOD, METRIC, STUDENT, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.pipeline.text import commit, machine, minute
from robust_distillation.reporting.figures.overview import overview
from robust_distillation.reporting.formats import mean_sd
from robust_distillation.reporting.report.elements import Facts, Group, Section
from robust_distillation.reporting.report.report_data import ReportData
from robust_distillation.reporting.table_spec import metric_title

LED = 3  # comparisons at most whose result the introduction tells


def section(report: ReportData) -> Section:
    """Makes the first section of the report: the settings of the experiment and its main accuracies.

    It contains a list of settings (dataset, threat model, protocol, numbers of teachers, students, methods and seeds,
    strongest attack, which is the last of `evaluation.attacks`, dates, machines and git commits). For each teacher and
    student it contains a figure of the accuracy on clean images and under the strongest attack, as
    `reporting.figures.overview.overview` draws it. For the first three pairs of teacher and student, the introduction
    names the method with the highest accuracy under the strongest attack.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `experiment`, `spec` (order of the methods), `table` (the main table), `values` (accuracy of each
            seed) and `records` (of all jobs; a record is the JSON file beside an output, with its date, machine and git
            commit).

    Returns:
        A `Section` with the `id` `overview`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    experiment, spec = report.experiment, report.spec
    students = report.table[report.table[STUDENT] != TEACHER_ROW]
    facts = [
        ("Dataset", f"{experiment.dataset.name}, {students['n_images'].iloc[0]} test images, "
         f"{len(experiment.info.classes)} classes"),
        ("Threat model", spec.attacked),
        ("Protocol", f"{spec.protocol}; best is {spec.selection}"),
        *[("Extra images", spec.extra)] * bool(spec.extra),
        *[("Model augmentation", spec.augmented)] * bool(spec.augmented),
        ("Matrix", _matrix(report)),
        ("Strongest attack", metric_title(spec.strongest)),
        ("Made", _when(report)),
        ("On", "; ".join(dict.fromkeys(machine(record["hardware"]) for record in report.records.values()))),
        ("Code", "; ".join(dict.fromkeys(commit(record) for record in report.records.values()))),
    ]  # fmt: skip
    groups = [Group("", [Facts(facts)])]
    groups += [Group(one.label, [overview(report.table, report.values, spec, one)]) for one in spec.comparisons]
    lead = " ".join(_best(report, comparison) for comparison in spec.comparisons[:LED])
    return Section("overview", "At a glance", lead, groups)


def _best(report: ReportData, comparison: Comparison) -> str:
    """Returns a sentence on the student with the highest robust accuracy, which may not differ from the next."""
    rows, robust = report.spec.at_headline(report.table), report.spec.strongest
    students = comparison.students(rows).set_index([METHOD, METRIC])
    best = students.xs(robust, level=METRIC)["mean"].idxmax()
    value, clean = students.loc[(best, robust)], students.loc[(best, "clean"), "mean"]
    sentence = (
        f"Of the students {comparison.student}, {best} has the highest {metric_title(robust)} accuracy: "
        f"{mean_sd(value['mean'], value['sd'])} %, at {clean:.2f} % on clean images"
    )
    teacher = comparison.teacher_rows(rows)
    if teacher.empty:
        return f"{sentence}."
    return f"{sentence}; the teacher {comparison.teacher} has {teacher.set_index(METRIC)['mean'][robust]:.2f} %."


def _matrix(report: ReportData) -> str:
    experiment = report.experiment
    counts = {
        "teacher": experiment.teachers, "student": experiment.students, "method": experiment.methods,
        "seed": experiment.file.seeds,
    }  # fmt: skip
    return ", ".join(f"{len(names)} {what}{'s' * (len(names) != 1)}" for what, names in counts.items())


def _when(report: ReportData) -> str:
    times = [record["time"] for record in report.records.values()]
    first, last = min(time["started"] for time in times), max(time["ended"] for time in times)
    return f"{minute(first)} to {minute(last)} UTC"
