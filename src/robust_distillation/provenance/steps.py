"""The code that each step of an experiment uses: a fingerprint per step, for the rules and for the records."""

from __future__ import annotations

from robust_distillation import attacks, data, methods, models
from robust_distillation.config import Experiment, Run
from robust_distillation.provenance.fingerprint import PACKAGE, fingerprint


def _code(*modules: str, of: tuple[str, ...] = ()) -> str:
    return fingerprint([f"{PACKAGE}.{module}" for module in modules] + list(of))


def _dataset(experiment: Experiment) -> str:
    return data.registry.module_name(experiment.dataset.name)


def _architecture(architecture: dict) -> str:
    return models.registry.module_name(architecture["name"])


def data_code(experiment: Experiment) -> str:
    return _code("data.dataset", of=(_dataset(experiment),))


def _training(experiment: Experiment, architecture: dict, method: str, *more: str, of: tuple[str, ...] = ()) -> str:
    named = (_dataset(experiment), _architecture(architecture), methods.registry.module_name(method))
    return _code("training.run", *more, of=named + of)


def teacher_code(experiment: Experiment, teacher: str) -> str:
    settings = experiment.teachers[teacher]
    return _training(experiment, settings.architecture, settings.trained_by.kind)


def cache_code(experiment: Experiment, teacher: str) -> str:
    architecture = _architecture(experiment.teachers[teacher].architecture)
    return _code("cache.fill", "models.checkpoint", of=(_dataset(experiment), architecture))


def student_code(experiment: Experiment, run: Run) -> str:
    method = experiment.methods[run.method]
    more, of = [], ()
    if method.needs.cached:
        more.append("cache.store")
    if method.needs.teacher_adversarial:
        more.append("teachers.live")
        of = (_architecture(experiment.teachers[run.teacher].architecture),)
    return _training(experiment, experiment.students[run.student], method.kind, *more, of=of)


def attack_code(experiment: Experiment, architecture: dict) -> str:
    named = tuple(attacks.registry.module_name(name) for name in experiment.evaluation.attacks)
    return _code(
        "evaluation.attack", "evaluation.outcomes", of=(*named, _dataset(experiment), _architecture(architecture))
    )


def merge_code() -> str:
    return _code("evaluation.outcomes")


def table_code() -> str:
    return _code("reporting.tables")


def figure_code() -> str:
    return _code("reporting.figures")


def tracking_code() -> str:
    return _code("tracking.runs")
