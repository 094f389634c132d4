"""The files that the report is made of: the rule's inputs, and those in its record."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.layout import Layout

TEMPLATES = Path(__file__).with_name("templates")


def folders(experiment: Experiment) -> list[Path]:
    """The folders of all teachers and students."""
    layout = Layout(experiment.name)
    teachers = [layout.teacher(name) for name in experiment.teachers]
    return teachers + [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]


def tables(experiment: Experiment) -> list[Path]:
    """The tables that are shown."""
    names = ["main", "comparisons", "claims", *(f"transfer-{target}" for target in experiment.file.transfer)]
    names += ["structure"] if experiment.file.structure else []
    names += ["tuning"] if experiment.tuned else []
    return [Layout(experiment.name).tables / f"{name}.csv" for name in names]


def curves(experiment: Experiment) -> list[Path]:
    layout = Layout(experiment.name)
    return [layout.student(run.teacher, run.student, run.method, run.seed) / "metrics.jsonl" for run in experiment.runs]


def robustness(experiment: Experiment) -> list[Path]:
    """Accuracy against eps, where it is asked for; the images lie beside each."""
    asked = experiment.file.robustness is not None
    return [Layout(experiment.name).robustness(folder) for folder in folders(experiment) if asked]


def records(experiment: Experiment) -> list[Path]:
    """Those of all jobs that are shown."""
    layout = Layout(experiment.name)
    found = [layout.record(layout.data), *(layout.record(layout.target_data(t)) for t in experiment.file.transfer)]
    found += [layout.record(layout.cache(teacher, kind)) for teacher, kind in experiment.caches]
    for teacher, student, method in experiment.tuned:
        tuned = layout.candidates(teacher, student, method)
        found += [tuned / name / "record.json" for name in experiment.candidates[method]]
        found.append(layout.record(layout.choice(teacher, student, method)))
    for folder in folders(experiment):
        found += [folder / "record.json", layout.record(layout.outcomes(folder))]
        if experiment.shards > 1:
            shards = (f"{number}-of-{experiment.shards}" for number in range(1, experiment.shards + 1))
            found += [layout.record(layout.shard(folder, shard)) for shard in shards]
        if experiment.file.structure:
            found.append(layout.record(layout.structure(folder)))
        found += [layout.record(layout.transferred(target, folder)) for target in experiment.file.transfer]
    found += [layout.record(file) for file in robustness(experiment)]
    return [*found, layout.record(layout.tables / "comparisons.csv")]


def sources(experiment: Experiment) -> list[Path]:
    """All of them."""
    layout = Layout(experiment.name)
    outcomes = [layout.outcomes(folder) for folder in folders(experiment)]
    values = robustness(experiment)
    images = [file.with_suffix(".npz") for file in values]
    shown = [layout.data, *outcomes, *curves(experiment), *tables(experiment), *values, *images]
    return [*shown, *records(experiment)]
