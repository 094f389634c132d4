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
    return _code("data.prepared", of=(_dataset(experiment),))


def _training(experiment: Experiment, architecture: dict, method: str, *more: str, of: tuple[str, ...] = ()) -> str:
    named = (_dataset(experiment), _architecture(architecture), methods.registry.module_name(method))
    return _code("training.run", "data.prepared", "compute", *more, of=named + of)


def teacher_code(experiment: Experiment, teacher: str) -> str:
    settings = experiment.teachers[teacher]
    return _training(experiment, settings.architecture, settings.trained_by.kind)


def cache_code(experiment: Experiment, teacher: str) -> str:
    architecture = _architecture(experiment.teachers[teacher].architecture)
    return _code("cache.fill", "cache.teaching", "compute", of=(_dataset(experiment), architecture))


def student_code(experiment: Experiment, run: Run) -> str:
    method, architecture = experiment.methods[run.method], experiment.students[run.student]
    if not method.needs.teacher:
        return _training(experiment, architecture, method.kind)
    live = [experiment.teachers[run.teacher].architecture] if method.needs.teacher_adversarial else []
    return _training(experiment, architecture, method.kind, "cache.teaching", of=tuple(map(_architecture, live)))


def attack_code(experiment: Experiment, architecture: dict) -> str:
    named = tuple(attacks.registry.module_name(name) for name in experiment.evaluation.attacks)
    named = (*named, _dataset(experiment), _architecture(architecture))
    return _code("evaluation.attack", "evaluation.blocks", "evaluation.outcomes", "data.prepared", "compute", of=named)


def merge_code() -> str:
    return _code("evaluation.outcomes")


def table_code() -> str:
    return _code("reporting.tables")


def figure_code() -> str:
    return _code("reporting.figures", "reporting.curves")


def tracking_code() -> str:
    return _code("tracking.runs")
