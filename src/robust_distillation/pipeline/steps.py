"""The code that each step of an experiment uses: a fingerprint per step, for the rules and for the records."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from robust_distillation import attacks, data, methods, models
from robust_distillation.columns import ON_SURROGATE
from robust_distillation.config import Experiment, Run
from robust_distillation.digests import digest
from robust_distillation.files import sha256
from robust_distillation.pipeline.fingerprint import PACKAGE, fingerprint

TEMPLATES = Path(__file__).parents[1] / "reporting/report/templates"


@cache  # jobs of thousands share a few
def _code(*modules: str, of: tuple[str, ...] = ()) -> str:
    return fingerprint([f"{PACKAGE}.{module}" for module in modules] + list(of))


def _dataset(experiment: Experiment) -> str:
    return data.registry.module_name(experiment.dataset.name)


def _architecture(architecture: dict) -> str:
    return models.registry.module_name(architecture["name"])


def data_code(dataset: str) -> str:
    return _code("pipeline.experiment_data", of=(data.registry.module_name(dataset),))


def _training(experiment: Experiment, architecture: dict, method: str, *more: str, of: tuple[str, ...] = ()) -> str:
    named = (_dataset(experiment), _architecture(architecture), methods.registry.module_name(method))
    return _code("training.run", "pipeline.experiment_data", "device", *more, of=named + of)


def teacher_code(experiment: Experiment, teacher: str) -> str:
    settings = experiment.teachers[teacher]
    return _training(experiment, settings.architecture, settings.recipe.method.kind)


def import_code(experiment: Experiment, teacher: str) -> str:
    named = (_dataset(experiment), _architecture(experiment.teachers[teacher].architecture))
    return _code("pipeline.import_teacher", of=named)


def cache_code(experiment: Experiment, teacher: str) -> str:
    architecture = _architecture(experiment.teachers[teacher].architecture)
    return _code("cache.fill", "pipeline.teacher_source", "device", of=(_dataset(experiment), architecture))


def student_code(experiment: Experiment, run: Run) -> str:
    method, architecture = experiment.methods[run.method], experiment.students[run.student]
    roles = experiment.roles(run.teacher)
    networks = [
        experiment.teachers[roles[role]].architecture for role, calls in method.teachers.items() if calls.loads_network
    ]
    networks += method.settings.networks(architecture).values()
    more = ("pipeline.teacher_source",) if method.has_teacher else ()
    return _training(experiment, architecture, method.kind, *more, of=tuple(map(_architecture, networks)))


def tune_code(experiment: Experiment, teacher: str, student: str, method: str) -> str:
    """That of the students: a short run is trained as they are."""
    return student_code(experiment, Run(teacher, student, method, seed=0))


def choice_code() -> str:
    return _code("training.tuning")


def _attacks(names: list[str]) -> tuple[str, ...]:
    return tuple(attacks.registry.module_name(name.removeprefix(ON_SURROGATE)) for name in names)


def attack_code(experiment: Experiment, architecture: dict) -> str:
    surrogate = [experiment.teachers[experiment.surrogate].architecture] if experiment.surrogate else []
    named = (
        *_attacks(experiment.evaluation.attacks),
        _dataset(experiment),
        *map(_architecture, [architecture, *surrogate]),
    )
    return _code(
        "evaluation.attack", "evaluation.blocks", "evaluation.outcomes", "pipeline.experiment_data", "device", of=named
    )


def structure_code(experiment: Experiment, architecture: dict) -> str:
    named = (_dataset(experiment), _architecture(architecture))
    return _code("evaluation.structure", "pipeline.experiment_data", "device", of=named)


def robustness_code(experiment: Experiment, architecture: dict) -> str:
    named = (_dataset(experiment), _architecture(architecture))
    return _code("evaluation.robustness", "pipeline.experiment_data", "device", of=named)


def transfer_code(experiment: Experiment, target: str, architecture: dict) -> str:
    chosen = experiment.file.transfer[target]
    named = (data.registry.module_name(chosen.dataset.name), _architecture(architecture), *_attacks(chosen.attacks))
    steps = ("evaluation.transfer", "evaluation.attack", "evaluation.blocks", "evaluation.outcomes")
    return _code(*steps, "pipeline.experiment_data", "device", of=named)


def merge_code() -> str:
    return _code("evaluation.outcomes")


def table_code() -> str:
    return _code("reporting.tables")


def figure_code() -> str:
    return _code("reporting.figures", "reporting.curves")


def compare_code() -> str:
    return _code("reporting.claims")


def structure_report_code() -> str:
    return _code("reporting.structure")


def transfer_report_code() -> str:
    return _code("reporting.transfer")


def report_code() -> str:
    """Of the modules and of the templates, which are no Python."""
    templates = {file.name: sha256(file) for file in sorted(TEMPLATES.rglob("*")) if file.is_file()}
    return digest([_code("reporting.report.page"), templates])


def tuning_report_code() -> str:
    return _code("reporting.tuning")


def tracking_code() -> str:
    return _code("tracking.runs")


def index_code() -> str:
    return _code("pipeline.index")
