"""The files that the report is made of, by kind."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.pipeline import steps
from robust_distillation.pipeline.models import models


def folders(experiment: Experiment) -> list[Path]:
    """The folders of all teachers and students."""
    return [model.folder for model in models(experiment)]


def tables(experiment: Experiment) -> list[Path]:
    """The tables that are shown."""
    return steps.shown_tables(experiment)


def robustness(experiment: Experiment) -> list[Path]:
    """Accuracy against eps, where it is asked for; the images lie beside each."""
    return [step.outputs[0] for step in steps.Robustness.jobs(experiment)]


def records(experiment: Experiment) -> list[Path]:
    """Those of all steps up to what is known of each model."""
    return [step.record for step in steps.computed(experiment)]


def sources(experiment: Experiment) -> tuple[Path, ...]:
    """All of them."""
    return steps.Report(experiment).inputs
