"""What an experiment will do and cost, before it does it."""

from __future__ import annotations

from collections import Counter

from tabulate import tabulate

from robust_distillation.config import Experiment
from robust_distillation.reporting.cost import SURVIVORS, cache_width, costs, views_of

TFLOPS = 10.0  # half of what an A100 could do in fp32
STEPS = ("train-teacher", "fill-cache", "tune", "train-student", "attack", "structure", "robustness", "transfer")


def jobs(experiment: Experiment) -> dict[str, int]:
    """How many jobs each kind of step will be, from nothing."""
    models = len(experiment.runs) + len(experiment.teachers)
    imported = sum(teacher.imported is not None for teacher in experiment.teachers.values())
    targets, structure = len(experiment.file.transfer), experiment.file.structure is not None
    tuning = experiment.file.tuning is not None
    counted = {
        "prepare-data": 1 + targets,
        "import-teacher": imported,
        "train-teacher": len(experiment.teachers) - imported,
        "fill-cache": len(experiment.caches),
        "tune": sum(len(experiment.candidates[method]) for _, _, method in experiment.tuned),
        "choose": len(experiment.tuned),
        "train-student": len(experiment.runs),
        "attack": models * (experiment.shards + (experiment.shards > 1)),
        "structure": models * structure,
        "robustness": models * (experiment.file.robustness is not None),
        "transfer": models * targets,
        "tables, figures, tracking": 6 + structure + targets + tuning,
    }
    return {step: count for step, count in counted.items() if count}


def describe(experiment: Experiment, tflops: float = TFLOPS) -> str:
    """tflops: sustained speed of one device, in 10^12 operations per second."""
    threat, evaluation = experiment.threat_model, experiment.evaluation
    views, found = views_of(experiment), costs(experiment)
    trained = Counter(run.method for run in experiment.runs)
    rows = [
        (name, experiment.methods[name].kind, _teaching(experiment, name), trained[name]) for name in experiment.methods
    ]
    counted = jobs(experiment)
    work = [
        (step, f"{found.flops[step] / 1e15:.4g}", f"{found.flops[step] / tflops / 3.6e15:.4g}")
        for step in STEPS
        if found.flops[step]
    ]
    total = sum(found.flops.values())
    work.append(("in all", f"{total / 1e15:.4g}", f"{total / tflops / 3.6e15:.4g}"))
    lines = [
        f"Experiment {experiment.name}: {experiment.dataset.name}, {threat.norm} eps {threat.eps:.4g}, "
        f"{experiment.file.protocol} protocol",
        f"  {experiment.size('train')} training images with {views} views each; best is chosen on "
        f"{experiment.size('validation')} {'test' if experiment.selects_on_test else 'validation'} images; "
        f"{experiment.test_images} test images",
        f"  teachers: {', '.join(experiment.teachers) or 'none'}; students: {', '.join(experiment.students)}; "
        f"seeds: {', '.join(map(str, experiment.file.seeds))}",
        *_tuning(experiment),
        f"  attacks: {', '.join(evaluation.attacks)} on {' and '.join(evaluation.checkpoints)}",
        "",
        tabulate(rows, headers=["name", "method", "teacher is asked for", "students to train"]),
        "",
        tabulate([*counted.items(), ("in all", sum(counted.values()))], headers=["step", "jobs"]),
        "",
        tabulate(
            work, headers=["step", "PFLOP", "GPU-hours"], disable_numparse=True, colalign=("left", "right", "right")
        ),
        f"GPU-hours at {tflops:g} TFLOP/s sustained (--tflops); {SURVIVORS:.0%} of the images are taken to survive "
        "Square and AutoAttack",
        "",
        "Disk",
    ]
    images = experiment.size("train") * views
    for teacher, kind in experiment.caches:
        width = cache_width(experiment, teacher, kind)
        lines.append(f"  cache of {teacher}, {kind}: {images} x {width} x 4 bytes = {_size(4 * images * width)}")
    lines.append(f"  checkpoints: {_size(found.bytes['checkpoints'])}")
    lines.append(f"  in all: {_size(sum(found.bytes.values()))}")
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _tuning(experiment: Experiment) -> list[str]:
    if not experiment.tuned:
        return []
    many = len(next(iter(experiment.candidates.values())))
    return [f"  tuning: {many} candidates of each method, {experiment.tuning_settings()['epochs']} epochs each"]


def _teaching(experiment: Experiment, name: str) -> str:
    needs = experiment.methods[name].needs
    asked = [f"{kind} (cache)" for kind in needs.cached]
    return ", ".join(asked + ["logits on x' (live)"] * needs.teacher_adversarial) or "-"
