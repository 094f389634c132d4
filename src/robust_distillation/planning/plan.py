"""The text of the plan: jobs, cost, time and disk space of an experiment, before it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tabulate import tabulate

from robust_distillation.config import Experiment
from robust_distillation.methods import TEACHER
from robust_distillation.pipeline.steps import STEPS
from robust_distillation.pipeline.text import duration
from robust_distillation.planning import calls, cost
from robust_distillation.planning.jobs import Job, by_step, jobs_of, makespan, written
from robust_distillation.planning.speed import SECONDS, Speed, Unknown
from robust_distillation.settings import CROP_FLIP

TFLOPS = 10.0  # half of what an A100 could do in fp32
TITLES = tuple(dict.fromkeys(kind.title for kind in STEPS))
COMPILED = "Trainings are compiled, which is not measured: they take less, once the compiler is done"
DEVICES = (1, 2, 4, 8, 16, 32, 64)


def describe(experiment: Experiment, tflops: float = TFLOPS, speed: Speed | None = None) -> str:
    """Returns the plan of an experiment as text of several lines: jobs, GPU-hours, time and disk space. Runs no job.

    The text is plain, with tables set in columns by spaces. It has tables of the methods (with the teacher outputs that
    they read), of the jobs by step of the workflow, of PFLOP and GPU-hours by step, of the duration by step and by
    number of jobs at once, and the bytes of caches and checkpoints.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        tflops: sustained speed of one device, in 10^12 floating-point operations per second; decides the GPU-hours. The
            default is 10 (TFLOPS).
        speed: the measured speed of this machine, `Speed(experiment)`, from which the time follows. If it is None or
            has no measurements of these networks, the text has no durations; it names the command line option
            `--calibrate`, which measures the networks.
    """
    threat, evaluation = experiment.threat_model, experiment.evaluation
    jobs = jobs_of(experiment)
    flops, disk = by_step(jobs, lambda job: job.flops), written(jobs)
    counted = by_step(jobs, lambda _: 1)
    trained = Counter(run.method for run in experiment.runs)
    rows = [
        (name, experiment.methods[name].kind, _teaching(experiment, name), trained[name]) for name in experiment.methods
    ]
    work = [
        (step, f"{flops[step] / 1e15:.4g}", f"{flops[step] / tflops / 3.6e15:.4g}") for step in TITLES if flops[step]
    ]
    total = sum(flops.values())
    work.append(("in all", f"{total / 1e15:.4g}", f"{total / tflops / 3.6e15:.4g}"))
    lines = [
        f"Experiment {experiment.name}: {experiment.dataset.name}, {threat.norm} eps {threat.eps:.4g}, "
        f"{experiment.file.protocol} protocol",
        f"  {experiment.size('train')} training images{_augmented(experiment)}; best is chosen on "
        f"{experiment.size('validation')} {'test' if experiment.selects_on_test else 'validation'} images; "
        f"{experiment.test_images} test images",
        *[f"  {experiment.extra_text}"] * bool(experiment.extra),
        f"  teachers: {experiment.teachers_text}",
        f"  students: {', '.join(experiment.students)}; seeds: {', '.join(map(str, experiment.file.seeds))}",
        *_tuning(experiment),
        f"  attacks: {', '.join(evaluation.attacks)} on {' and '.join(evaluation.checkpoints)}",
        *([f"  metrics: {', '.join(evaluation.metrics)}"] if evaluation.metrics else []),
        "",
        tabulate(rows, headers=["name", "method", "teacher is asked for", "students to train"]),
        "",
        tabulate(
            [*((step, counted[step]) for step in TITLES if counted[step]), ("in all", len(jobs))],
            headers=["step", "jobs"],
        ),
        "",
        tabulate(
            work, headers=["step", "PFLOP", "GPU-hours"], disable_numparse=True, colalign=("left", "right", "right")
        ),
        f"GPU-hours at {tflops:g} TFLOP/s sustained (--tflops); {cost.SURVIVORS:.0%} of the images are taken to "
        "survive Square and AutoAttack",
        "",
        *_time(jobs, speed),
        "",
        "Disk",
    ]
    for cache in experiment.caches:
        width, size = (
            cost.cache_width(experiment, cache.teacher, cache.kind),
            _size(cost.cache_bytes(experiment, cache)),
        )
        named = ", ".join(filter(None, (cache.teacher, cache.views.name, cache.kind)))
        lines.append(f"  cache of {named}: {cost.cached_rows(experiment, cache.views)} x {width} x 4 bytes = {size}")
    lines += _choices(experiment)
    lines.append(f"  checkpoints: {_size(disk['checkpoints'])}")
    lines.append(f"  in all: {_size(sum(disk.values()))}")
    return "\n".join(lines)


def _time(jobs: dict[str, Job], speed: Speed | None) -> list[str]:
    try:
        if speed is None:
            raise Unknown
        seconds = speed.seconds(jobs)
    except Unknown:
        return [f"Time: --calibrate measures this machine, in about {SECONDS:.0f} seconds, and keeps what it found"]
    counted, spent = by_step(jobs, lambda _: 1), by_step(jobs, lambda job: seconds[job.name])
    rows = [(step, duration(spent[step] / counted[step]), duration(spent[step])) for step in TITLES if counted[step]]
    rows.append(("in all", "", duration(sum(seconds.values()))))
    last = makespan(jobs, seconds, len(jobs))
    counts = [count for count in sorted({*DEVICES, speed.at_once}) if count <= len(jobs) or count == speed.at_once]
    useful = [count for count in counts if count == speed.at_once or makespan(jobs, seconds, count) > 1.02 * last]
    ends = [
        (f"{count}{' (this machine)' if count == speed.at_once else ''}", duration(makespan(jobs, seconds, count)))
        for count in useful
    ]
    ends.append(("any number", duration(last)))
    return [
        f"Time, by what was measured on {speed.machine}",
        "",
        tabulate(rows, headers=["step", "a job", "all"], disable_numparse=True, colalign=("left", "right", "right")),
        "",
        tabulate(ends, headers=["jobs at once", "done after"], disable_numparse=True, colalign=("left", "right")),
        *[COMPILED] * speed.compiles(jobs),
    ]


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _augmented(experiment: Experiment) -> str:
    """Returns how many views an image has by each augmentation."""
    found = {}
    for recipe in [*experiment.recipes.values(), *(teacher.recipe for teacher in experiment.teachers.values())]:
        if recipe:
            views = experiment.view_set(recipe.training, 0)
            found[views.kind] = (
                f"{cost.views_per_image(experiment, views)} views each"
                if views.augmentation.enumerable
                else "a view an epoch"
            )
    if [*found] == [CROP_FLIP]:
        return f" with {found[CROP_FLIP]}"
    return ", augmented by " + " and ".join(f"{kind} ({views})" for kind, views in found.items())


def _choices(experiment: Experiment) -> list[str]:
    """Returns the cost of the teachers' outputs on views that are drawn in every epoch, as records and live."""
    records, live = set(), []
    for teacher, recipe, architecture, seed in experiment.distillations:
        views = experiment.view_set(recipe.training, seed)
        if not views.augmentation.enumerable and recipe.method.settings.cached:
            stored = replace(views, augmentation=views.augmentation.model_copy(update={"cache": "records"}))
            records |= {*experiment.caches_of(teacher, recipe.method.settings, stored)}
            live += calls.asking(experiment, recipe, architecture, teacher)
    if not records:
        return []
    filled = calls.flops(part for cache in records for part in cost.filling(experiment, cache))
    stored = _size(sum(cost.cache_bytes(experiment, cache) for cache in records))
    return [
        "  teachers' outputs on views that are drawn in every epoch, by training.augmentation.cache:",
        f"    records: {stored}, {filled / 1e15:.4g} PFLOP",
        f"    live: no file, {calls.flops(live) / 1e15:.4g} PFLOP",
    ]


def _tuning(experiment: Experiment) -> list[str]:
    if not experiment.tuned:
        return []
    many = len(next(iter(experiment.candidates.values())))
    return [f"  tuning: {many} candidates of each method, {experiment.tuning_settings()['epochs']} epochs each"]


def _teaching(experiment: Experiment, name: str) -> str:
    lines, live = [], experiment.view_set(experiment.training_of(name), 0).augmentation.asks_live
    for role, declared in experiment.methods[name].teachers.items():
        asked = [f"{kind} ({'live' if live else 'cache'})" for kind in declared.cached]
        if declared.live or declared.gradient:
            asked.append("live, with gradient in the images" if declared.gradient else "live")
        asked += ["trained along"] * declared.trained
        lines.append(", ".join(asked) if role == TEACHER else f"{role}: {', '.join(asked)}")
    return "; ".join(lines) or "-"
