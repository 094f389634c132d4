"""The report's input files, by kind."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.pipeline import steps
from robust_distillation.pipeline.models import models


def folders(experiment: Experiment) -> list[Path]:
    """Returns the folders of all teachers and students."""
    return [model.folder for model in models(experiment)]


def tables(experiment: Experiment) -> list[Path]:
    """Returns the tables of the report."""
    return steps.shown_tables(experiment)


def robustness(experiment: Experiment) -> list[Path]:
    """Returns the files of accuracy against eps; none if the experiment does not ask for them."""
    return [step.outputs[0] for step in steps.Robustness.jobs(experiment)]


def structures(experiment: Experiment) -> list[Path]:
    """Returns the files of class correlations and feature distances; none if the experiment does not ask for them."""
    return [step.outputs[0] for step in steps.Structure.jobs(experiment)]


def records(experiment: Experiment) -> list[Path]:
    """Returns the records of all computing steps: data, trainings, attacks and analyses."""
    return [step.record for step in steps.computed(experiment)]


def sources(experiment: Experiment) -> tuple[Path, ...]:
    """Returns all input files."""
    return steps.Report(experiment).inputs
