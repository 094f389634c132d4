"""The files that the report is made of, by kind."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.pipeline import links


def folders(experiment: Experiment) -> list[Path]:
    """The folders of all teachers and students."""
    return [model.folder for model in links.models(experiment)]


def tables(experiment: Experiment) -> list[Path]:
    """The tables that are shown."""
    return links.shown_tables(experiment)


def robustness(experiment: Experiment) -> list[Path]:
    """Accuracy against eps, where it is asked for; the images lie beside each."""
    asked = experiment.file.robustness is not None
    return [links.robustness(experiment, model).outputs[0] for model in links.models(experiment) if asked]


def records(experiment: Experiment) -> list[Path]:
    """Those of all steps up to what is known of each model."""
    return [link.record for link in links.computed(experiment)]


def sources(experiment: Experiment) -> tuple[Path, ...]:
    """All of them."""
    return links.report(experiment).inputs
