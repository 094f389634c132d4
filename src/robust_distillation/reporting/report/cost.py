"""The section on costs: time and energy from the records, floating-point operations by count."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from robust_distillation.pipeline.models import student_folder
from robust_distillation.pipeline.text import duration, seconds
from robust_distillation.planning.calls import flops as flops_of
from robust_distillation.planning.calls import training
from robust_distillation.planning.jobs import by_step, jobs_of
from robust_distillation.reporting.report.dag import edges, layers
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table
from robust_distillation.reporting.report.report_data import ReportData


def section(report: ReportData) -> Section:
    """Makes the report's section on the costs of the experiment: time, floating-point operations and energy.

    It contains two tables:

    - For each step (a kind of job, such as `train-student`; a job is one run of a step): number of jobs, sum of their
      durations, floating-point operations (counted, not measured) in TFLOP, and energy in kJ. The column of energy
      exists if at least one job measured its energy. Its cell is `not read` if one of the step's jobs did not.
    - For each method and student: number of trainings (one for each teacher and seed), mean duration of a training,
      counted TFLOP of one training, and the kinds of cached teacher outputs that the method reads (`logits`, `features`
      or `nothing`).

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `records` (of all jobs, with durations and energies; a record is the JSON file beside an output)
            and `experiment`.

    Returns:
        A `Section` with the `id` `cost`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    lead = (
        "Seconds are those of the jobs as they ran, jobs beside each other included, so that they add up to more "
        "than the time on the clock. Floating-point operations are counted, not measured: forward passes of an "
        "image, twice as much for a gradient in it, three times for a training step."
    )
    return Section("cost", "What it cost", lead, [Group("", [_by_step(report), _by_method(report)])])


def _by_step(report: ReportData) -> Table:
    steps: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in report.records.values():
        steps[record["step"]].append(record)
    flops = by_step(jobs_of(report.experiment), lambda job: job.flops)
    rows = []
    total = sum(map(seconds, report.records.values()))
    metered = any(record.get("energy") for record in report.records.values())
    for step in sorted(steps, key=layers(steps, edges(report.records.values())).__getitem__):
        found = steps[step]
        spent = sum(map(seconds, found))
        rows.append([
            Cell(step), Cell(str(len(found)), len(found)),
            Cell(duration(spent), spent, share=spent / total if total else 0),
            Cell(f"{flops[step] / 1e12:,.1f}", flops[step]) if flops[step] else Cell(""),
            *([_energy(found)] if metered else []),
        ])  # fmt: skip
    heads = [Head("Step", number=False), Head("Jobs"), Head("Time"), Head("TFLOP")]
    heads += [Head("Energy (kJ)")] if metered else []
    return Table(f"By step; {duration(total)} of jobs in all.", [heads], rows)


def _energy(found: list[dict[str, Any]]) -> Cell:
    """Returns the energy of the machine while the jobs ran, or `not read` if one of them could not read it."""
    known = [record["energy"]["joules"] for record in found if record.get("energy")]
    return Cell(f"{sum(known) / 1e3:,.1f}", sum(known)) if len(known) == len(found) else Cell("not read")


def _by_method(report: ReportData) -> Table:
    experiment = report.experiment
    rows = []
    for method, named in experiment.methods.items():
        runs = [run for run in experiment.runs if run.method == method]
        for student in dict.fromkeys(run.student for run in runs):
            own = [run for run in runs if run.student == student]
            spent = [seconds(report.records[report.layout.training_record(student_folder(experiment, r))]) for r in own]
            recipe, architecture = experiment.recipes[method, student], experiment.students[student]
            works = (training(experiment, recipe, architecture, run.teacher) for run in own)
            flops = sum(map(flops_of, works)) / len(own)  # teachers differ in size
            mean = sum(spent) / len(spent)
            cached = [kind for _, kind in named.settings.cached]
            rows.append([
                Cell(method), Cell(student), Cell(str(len(own)), len(own)), Cell(duration(mean), mean),
                Cell(f"{flops / 1e12:,.2f}", flops), Cell(", ".join(cached) or "nothing"),
            ])  # fmt: skip
    heads = [Head("Method", number=False), Head("Student", number=False), Head("Runs")]
    heads += [Head("Time a run"), Head("TFLOP a run"), Head("Reads from the cache")]
    return Table("Training of one student by each method, mean over its runs.", [heads], rows, texts=2)
