"""What an experiment will do, before it does it."""

from __future__ import annotations

from collections import Counter

from tabulate import tabulate

from robust_distillation.config import Experiment


def describe(experiment: Experiment) -> str:
    threat, evaluation = experiment.threat_model, experiment.evaluation
    views = (2 * experiment.dataset.padding + 1) ** 2 * (2 if experiment.info.flips else 1)
    trained = Counter(run.method for run in experiment.runs)
    rows = [
        (name, experiment.methods[name].kind, _teaching(experiment, name), trained[name]) for name in experiment.methods
    ]
    models = len(experiment.runs) + len(experiment.teachers)
    per_model = experiment.shards + (experiment.shards > 1)
    jobs = {
        "prepare-data": 1,
        "train-teacher": len(experiment.teachers),
        "fill-cache": len(experiment.caches),
        "train-student": len(experiment.runs),
        "attack": models * per_model,
        "tables, figures, tracking": 3,
    }
    lines = [
        f"Experiment {experiment.name}: {experiment.dataset.name}, {threat.norm} eps {threat.eps:g}, "
        f"{experiment.file.protocol} protocol",
        f"  {experiment.size('train')} training images with {views} views each, "
        f"{experiment.size('validation')} validation images, {experiment.test_images} test images",
        f"  teachers: {', '.join(experiment.teachers) or 'none'}; students: {', '.join(experiment.students)}; "
        f"seeds: {', '.join(map(str, experiment.file.seeds))}",
        f"  attacks: {', '.join(evaluation.attacks)} on {' and '.join(evaluation.checkpoints)}",
        "",
        tabulate(rows, headers=["name", "method", "teacher is asked for", "students to train"]),
        "",
        tabulate([*jobs.items(), ("in all", sum(jobs.values()))], headers=["step", "jobs"]),
        "",
    ]
    images = experiment.size("train") * views
    for teacher, kind in experiment.caches:
        width = f"{len(experiment.info.classes)}" if kind == "logits" else "its feature width"
        total = f" = {images * len(experiment.info.classes) * 4 / 1e6:.1f} MB" if kind == "logits" else ""
        lines.append(f"Cache of {teacher}, {kind}: {images} x {width} x 4 bytes{total}")
    return "\n".join(lines)


def _teaching(experiment: Experiment, name: str) -> str:
    needs = experiment.methods[name].needs
    asked = [f"{kind} (cache)" for kind in needs.cached]
    return ", ".join(asked + ["logits on x' (live)"] * needs.teacher_adversarial) or "-"
