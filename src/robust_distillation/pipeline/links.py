"""The chain behind every number: each step of an experiment with the files it reads and makes, its settings and its
code, as they follow from the experiment file and the source. A record says what was, a link what must have been."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from robust_distillation.columns import ITSELF
from robust_distillation.config import Experiment, Run, Teacher, claims_of, comparison_settings
from robust_distillation.config.tuning import with_candidate
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout
from robust_distillation.pipeline import steps
from robust_distillation.training.tuning import read_choice

FORMATS = ("csv", "md", "tex")


@dataclass(frozen=True)
class Link:
    """One job."""

    step: str
    name: str  # `robust-distillation NAME` makes it again
    record: Path
    settings: dict[str, Any]
    code: str  # fingerprint
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    rebuildable: bool = False  # its outputs may be absent: they are not versioned, but made again from its inputs


def links(experiment: Experiment) -> tuple[Link, ...]:
    """Every step, each after those whose files it reads."""
    return *computed(experiment), *reported(experiment), track(experiment), report(experiment)


def computed(experiment: Experiment) -> tuple[Link, ...]:
    """The steps up to what is known of each model."""
    found = [prepare_data(experiment), *(prepare_data(experiment, target) for target in experiment.file.transfer)]
    found += [teach(experiment, teacher) for teacher in experiment.teachers]
    found += [fill_cache(experiment, teacher, kind) for teacher, kind in experiment.caches]
    for names in experiment.tuned:
        found += tune(experiment, *names)
    found += [train_student(experiment, run) for run in experiment.runs]
    for model in models(experiment):
        found += looks(experiment, model)
    return tuple(found)


def about(experiment: Experiment, model: Model) -> Iterator[Link]:
    """The steps about one model alone: its training or import, then all that looks at it."""
    yield train_student(experiment, model.run) if model.run else teach(experiment, model.name)
    yield from looks(experiment, model)


def looks(experiment: Experiment, model: Model) -> Iterator[Link]:
    """Attacks and analyses of a model."""
    yield from attack(experiment, model)
    if experiment.file.structure:
        yield structure(experiment, model)
    if experiment.file.robustness:
        yield robustness(experiment, model)
    for target in experiment.file.transfer:
        yield transfer(experiment, target, model)


@cache
def recorded(experiment: Experiment) -> tuple[tuple[Path, tuple[Path, ...]], ...]:
    """Of each computed step its record, and its outputs unless they may be made again. These are names, which no choice
    of a tuning stage moves, as it does settings: so they may be kept."""
    return tuple((link.record, () if link.rebuildable else link.outputs) for link in computed(experiment))


@cache
def reported(experiment: Experiment) -> tuple[Link, ...]:
    """The steps that make tables and figures."""
    found = [tabulate(experiment), draw_figures(experiment), compare(experiment)]
    if experiment.file.structure:
        found.append(report_structure(experiment))
    found += [report_transfer(experiment, target) for target in experiment.file.transfer]
    if experiment.file.tuning:
        found.append(report_tuning(experiment))
    return tuple(found)


def index(experiment: Experiment) -> Link:
    """The index of all artefacts and records; it has no record of its own, dvc.lock speaks for it."""
    layout = Layout(experiment.name)
    files = [file for record, outputs in recorded(experiment) for file in (*outputs, record)]
    for link in (*reported(experiment), track(experiment), report(experiment)):
        files += [*link.outputs, link.record]
    return Link("index", "index", layout.index, {}, steps.index_code(), tuple(files), (layout.index,))


@dataclass(frozen=True)
class Model:
    """A trained network that is looked at."""

    name: str  # a teacher's, or TEACHER/STUDENT/METHOD/seed-N
    folder: Path
    keys: dict[str, Any]  # of its outcomes: teacher, student, method, seed
    architecture: dict[str, Any]
    checkpoints: dict[str, Path]  # those that count, the headline's first
    run: Run | None  # None of a teacher

    @property
    def headline(self) -> tuple[str, Path]:
        return next(iter(self.checkpoints.items()))


@cache
def models(experiment: Experiment) -> tuple[Model, ...]:
    """All teachers, then all students."""
    layout, found = Layout(experiment.name), []
    for name, teacher in experiment.teachers.items():
        keys = {"teacher": name, "student": ITSELF, "method": teacher.origin, "seed": teacher.seed}
        weights = {teacher.checkpoint: taught_from(layout, name, teacher)}
        found.append(Model(name, layout.teacher(name), keys, teacher.architecture, weights, None))
    for run in experiment.runs:
        folder = student_folder(layout, run)
        weights = {name: folder / f"{name}.safetensors" for name in experiment.evaluation.checkpoints}
        found.append(Model(run_name(run), folder, asdict(run), experiment.students[run.student], weights, run))
    return tuple(found)


def run_name(run: Run) -> str:
    return f"{run.teacher}/{run.student}/{run.method}/seed-{run.seed}"


def student_folder(layout: Layout, run: Run) -> Path:
    return layout.student(run.teacher, run.student, run.method, run.seed)


def prepare_data(experiment: Experiment, target: str | None = None) -> Link:
    layout = Layout(experiment.name)
    files = experiment.dataset if target is None else experiment.file.transfer[target].dataset
    output = layout.data if target is None else layout.target_data(target)
    name = "prepare-data" if target is None else f"prepare-data --target {target}"
    settings, code = experiment.data_settings(target), steps.data_code(files.name)
    return Link("prepare-data", name, layout.record(output), settings, code, (), (output,))


def teach(experiment: Experiment, name: str) -> Link:
    """Training or importing a teacher."""
    layout, teacher = Layout(experiment.name), experiment.teachers[name]
    folder, settings = layout.teacher(name), experiment.teacher_settings(name)
    step, code, made = "train-teacher", steps.teacher_code, ("best.safetensors", "last.safetensors", "metrics.jsonl")
    if teacher.imported:
        step, code, made = "import-teacher", steps.import_code, ("imported.safetensors",)
    return Link(
        step, f"{step} {name}", folder / "record.json", settings, code(experiment, name), (layout.data,),
        tuple(folder / file for file in made),
    )  # fmt: skip


def taught_from(layout: Layout, name: str, teacher: Teacher) -> Path:
    """The checkpoint of a teacher that students learn from."""
    return layout.teacher(name) / f"{teacher.checkpoint}.safetensors"


def fill_cache(experiment: Experiment, teacher: str, kind: str) -> Link:
    layout = Layout(experiment.name)
    weights, output = taught_from(layout, teacher, experiment.teachers[teacher]), layout.cache(teacher, kind)
    return Link(
        "fill-cache", f"fill-cache {teacher} {kind}", layout.cache_record(teacher, kind),
        experiment.cache_settings(kind), steps.cache_code(experiment, teacher), (layout.data, weights),
        (output, output.with_suffix(".json")), rebuildable=True,
    )  # fmt: skip


def tune(experiment: Experiment, teacher: str, student: str, method: str) -> Iterator[Link]:
    """The short runs of a method's candidates, and the choice between them."""
    layout = Layout(experiment.name)
    names, folder = f"{teacher}/{student}/{method}", layout.candidates(teacher, student, method)
    for candidate in experiment.candidates[method]:
        yield Link(
            "tune", f"tune {names} {candidate}", folder / candidate / "record.json",
            experiment.candidate_settings(student, method, candidate),
            steps.tune_code(experiment, teacher, student, method), _lessons(experiment, teacher, method),
            (folder / candidate / "metrics.jsonl",),
        )  # fmt: skip
    chosen = layout.choice(teacher, student, method)
    yield Link(
        "choose", f"choose {names}", layout.record(chosen), experiment.choice_settings(method), steps.choice_code(),
        tuple(folder / candidate / "metrics.jsonl" for candidate in experiment.candidates[method]),
        (chosen, folder / "candidates.json"),
    )  # fmt: skip


def train_student(experiment: Experiment, run: Run) -> Link:
    layout = Layout(experiment.name)
    folder, inputs = student_folder(layout, run), _lessons(experiment, run.teacher, run.method)
    recipe = experiment.recipes[run.method, run.student]
    if experiment.file.tuning:
        chosen = layout.choice(run.teacher, run.student, run.method)
        inputs = (*inputs, chosen)
        with suppress(UserError):  # not made yet, or broken: then the settings are those before the choice
            found = read_choice(chosen, experiment, run.teacher, run.student, run.method)
            recipe = with_candidate(recipe, found)
    return Link(
        "train-student", f"train-student {run_name(run)}", folder / "record.json",
        experiment.student_settings(run, recipe), steps.student_code(experiment, run), inputs,
        tuple(folder / file for file in ("best.safetensors", "last.safetensors", "metrics.jsonl")),
    )  # fmt: skip


def _lessons(experiment: Experiment, teacher: str, method: str) -> tuple[Path, ...]:
    """What a training of a method reads: the data, and what it asks of its teacher."""
    layout, settings, roles = Layout(experiment.name), experiment.methods[method].settings, experiment.roles(teacher)
    inputs = [layout.data]
    inputs += [taught_from(layout, roles[role], experiment.teachers[roles[role]]) for role in settings.teachers()]
    for role, kind in settings.cached:
        values = layout.cache(roles[role], kind)
        inputs += [values, values.with_suffix(".json")]
    return tuple(dict.fromkeys(inputs))


def attack(experiment: Experiment, model: Model) -> Iterator[Link]:
    """One job for all blocks, or a job per shard and one that merges them."""
    layout, shards = Layout(experiment.name), experiment.shards
    inputs = [layout.data, *model.checkpoints.values()]
    if surrogate := experiment.surrogate:
        inputs.append(taught_from(layout, surrogate, experiment.teachers[surrogate]))
    settings = experiment.attack_settings(list(model.checkpoints))
    code, outcomes = steps.attack_code(experiment, model.architecture), layout.outcomes(model.folder)
    if shards == 1:
        yield Link(
            "attack", f"attack {model.name}", layout.record(outcomes), settings, code, tuple(inputs), (outcomes,)
        )
        return
    parts = tuple(layout.shard(model.folder, f"{i}-of-{shards}") for i in range(1, shards + 1))
    for part in parts:
        name = f"attack {model.name} --shard {part.stem}"
        yield Link("attack", name, layout.record(part), settings, code, tuple(inputs), (part,))
    yield Link(
        "merge-outcomes", f"merge-outcomes {model.name}", layout.record(outcomes), {"shards": shards},
        steps.merge_code(), parts, (outcomes,),
    )  # fmt: skip


def structure(experiment: Experiment, model: Model) -> Link:
    layout, output = Layout(experiment.name), Layout(experiment.name).structure(model.folder)
    return Link(
        "structure", f"structure {model.name}", layout.record(output), experiment.structure_settings(),
        steps.structure_code(experiment, model.architecture), (layout.data, model.headline[1]), (output,),
    )  # fmt: skip


def robustness(experiment: Experiment, model: Model) -> Link:
    layout, output = Layout(experiment.name), Layout(experiment.name).robustness(model.folder)
    return Link(
        "robustness", f"robustness {model.name}", layout.record(output), experiment.robustness_settings(),
        steps.robustness_code(experiment, model.architecture), (layout.data, model.headline[1]),
        (output, output.with_suffix(".npz")),
    )  # fmt: skip


def transfer(experiment: Experiment, target: str, model: Model) -> Link:
    layout = Layout(experiment.name)
    output = layout.transferred(target, model.folder)
    return Link(
        "transfer", f"transfer {target} {model.name}", layout.record(output), experiment.transfer_settings(target),
        steps.transfer_code(experiment, target, model.architecture),
        (layout.target_data(target), model.headline[1]), (output, output.with_suffix(".safetensors")),
    )  # fmt: skip


def outcomes(experiment: Experiment) -> list[Path]:
    """The outcome files of all models."""
    return [Layout(experiment.name).outcomes(model.folder) for model in models(experiment)]


def tabulate(experiment: Experiment) -> Link:
    layout = Layout(experiment.name)
    shown = [layout.tables / f"{name}.{kind}" for name in ("main", *experiment.file.tables) for kind in FORMATS]
    headlines = [layout.headline(name) for name in experiment.teachers]
    headlines += sorted({layout.headline(run.teacher, run.student, run.method) for run in experiment.runs})
    return Link(
        "tabulate", "tabulate", layout.record(layout.tables / "main.csv"), experiment.matrix(), steps.table_code(),
        tuple(outcomes(experiment)), (*shown, *headlines),
    )  # fmt: skip


def draw_figures(experiment: Experiment) -> Link:
    layout = Layout(experiment.name)
    curves = [student_folder(layout, run) / "metrics.jsonl" for run in experiment.runs]
    return Link(
        "draw-figures", "draw-figures", layout.record(layout.figures / "figures.png"), experiment.matrix(),
        steps.figure_code(), (*outcomes(experiment), *curves),
        pictures(experiment, "training", "trade-off", "per-class"),
    )  # fmt: skip


def report_structure(experiment: Experiment) -> Link:
    layout = Layout(experiment.name)
    made = [layout.structure(model.folder) for model in models(experiment)]
    return Link(
        "report-structure", "report-structure", layout.record(layout.tables / "structure.csv"), experiment.matrix(),
        steps.structure_report_code(), tuple(made),
        (*as_table(layout, "structure"), *pictures(experiment, "correlations", "feature-distances")),
    )  # fmt: skip


def report_transfer(experiment: Experiment, target: str) -> Link:
    layout, name = Layout(experiment.name), f"transfer-{target}"
    made = [layout.transferred(target, model.folder) for model in models(experiment)]
    settings = experiment.matrix() | {"attacks": experiment.file.transfer[target].attacks}
    return Link(
        "report-transfer", f"report-transfer {target}", layout.record(layout.tables / f"{name}.csv"), settings,
        steps.transfer_report_code(), tuple(made), (*as_table(layout, name), *pictures(experiment, name)),
    )  # fmt: skip


def report_tuning(experiment: Experiment) -> Link:
    layout = Layout(experiment.name)
    return Link(
        "report-tuning", "report-tuning", layout.record(layout.tables / "tuning.csv"), experiment.tuning_settings(),
        steps.tuning_report_code(),
        tuple(layout.candidates(*names) / "candidates.json" for names in experiment.tuned), as_table(layout, "tuning"),
    )  # fmt: skip


def evidence(experiment: Experiment) -> dict[str, list[Path]]:
    """What comparisons and claims are made of: the outcomes on the experiment's images under "", and the files of each
    analysis that a claim is about."""
    layout, files = Layout(experiment.name), {"": outcomes(experiment)}
    for analysis in dict.fromkeys(claim.statement.analysis for claim in claims_of(experiment)):
        folders = [model.folder for model in models(experiment)]
        if analysis == "structure":
            files[analysis] = [layout.structure(folder) for folder in folders]
        elif analysis:
            target = analysis.removeprefix("transfer-")
            files[analysis] = [layout.transferred(target, folder) for folder in folders]
    return files


def compare(experiment: Experiment) -> Link:
    layout = Layout(experiment.name)
    inputs = tuple(file for group in evidence(experiment).values() for file in group)
    return Link(
        "compare", "compare", layout.record(layout.tables / "comparisons.csv"), comparison_settings(experiment),
        steps.compare_code(), inputs, (*as_table(layout, "comparisons"), *as_table(layout, "claims")),
    )  # fmt: skip


@cache
def track(experiment: Experiment) -> Link:
    layout = Layout(experiment.name)
    trained = [teach(experiment, name) for name in experiment.teachers]
    trained += [train_student(experiment, run) for run in experiment.runs]
    inputs = [layout.data, *outcomes(experiment)]
    inputs += [file for link in trained for file in (*link.outputs, link.record)]
    inputs += [file for link in reported(experiment) for file in link.outputs]
    return Link(
        "track", "track", layout.record(layout.tracked), {}, steps.tracking_code(), tuple(inputs), (layout.tracked,)
    )


def shown_tables(experiment: Experiment) -> list[Path]:
    """Those in the report: all that are always made, claims where there are some."""
    apart = {*experiment.file.tables, *([] if experiment.file.claims else ["claims"])}
    made = [file for link in reported(experiment) for file in link.outputs if file.suffix == ".csv"]
    return [file for file in made if file.stem not in apart]


@cache
def report(experiment: Experiment) -> Link:
    layout, made = Layout(experiment.name), models(experiment)
    inputs = [layout.data, *outcomes(experiment), *shown_tables(experiment)]
    inputs += [student_folder(layout, run) / "metrics.jsonl" for run in experiment.runs]
    if experiment.file.robustness:
        inputs += [file for model in made for file in robustness(experiment, model).outputs]
    inputs += [record for record, _ in recorded(experiment)]
    return Link(
        "report", "report", layout.record(layout.report), experiment.matrix(), steps.report_code(), tuple(inputs),
        (layout.report,),
    )  # fmt: skip


def as_table(layout: Layout, name: str) -> tuple[Path, ...]:
    return tuple(layout.tables / f"{name}.{kind}" for kind in FORMATS)


def pictures(experiment: Experiment, *names: str) -> tuple[Path, ...]:
    """The figures of each comparison, as PNG and as PDF."""
    figures = Layout(experiment.name).figures
    panels: Iterable[Path] = (figures / teacher / student for teacher, student in experiment.pairs)
    return tuple(panel / f"{name}.{kind}" for panel in panels for name in names for kind in ("png", "pdf"))
