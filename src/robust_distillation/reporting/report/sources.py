"""The input files of the report, by kind. Nothing is read: the files need not exist."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.pipeline import steps
from robust_distillation.pipeline.models import models


def folders(experiment: Experiment) -> list[Path]:
    """Returns the folders of all trained networks, such as `results/digits/students/wide/small/rslad/seed-0`.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Returns:
        One folder for each teacher, then one for each student training (one method and one seed).
    """
    return [model.folder for model in models(experiment)]


def tables(experiment: Experiment) -> list[Path]:
    """Returns the paths of the CSV files of the tables that the report shows, such as `results/digits/tables/main.csv`.

    The tables are main and comparisons, and, if the experiment file has the entries for them, claims, structure, tuning
    and transfer-TARGET. Tables that the experiment file names under `tables` are left out, since they are parts of
    main.csv.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
    """
    return steps.shown_tables(experiment)


def robustness(experiment: Experiment) -> list[Path]:
    """Returns the paths of the JSON files with the accuracy against eps, one for each trained network.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Returns:
        Paths such as `results/digits/robustness/students/wide/small/rslad/seed-0.json`, those of the teachers first.
        Empty if the experiment file has no entry `robustness`.
    """
    return [step.outputs[0] for step in steps.Robustness.jobs(experiment)]


def structures(experiment: Experiment) -> list[Path]:
    """Returns the paths of the JSON files with class correlations and feature distances, one for each trained network.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Returns:
        Paths such as `results/digits/structure/students/wide/small/rslad/seed-0.json`, those of the teachers first.
        Empty if the experiment file has no entry `structure`.
    """
    return [step.outputs[0] for step in steps.Structure.jobs(experiment)]


def records(experiment: Experiment) -> list[Path]:
    """Returns the paths of the records of all jobs that prepare data or that train, attack or analyse a network.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs. A job is one
    run of a step, such as the training of one student.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Returns:
        Paths such as `results/digits/students/wide/small/rslad/seed-0/record.json`.
    """
    return [step.record for step in steps.computed(experiment)]


def sources(experiment: Experiment) -> tuple[Path, ...]:
    """Returns the paths of all input files of the report, so that missing ones can be found before any is read.

    They are data.json, the outcomes (Parquet), tables/NAME.csv, the training curves (metrics.jsonl), the files of the
    analyses, and the records of all jobs (a record is the JSON file beside an output: its inputs, settings, code hash
    and hashes of the outputs).

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
    """
    return steps.Report(experiment).inputs
