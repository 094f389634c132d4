"""The contents of the report, read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import read_json
from robust_distillation.layout import Layout
from robust_distillation.reporting.curves import read_curves
from robust_distillation.reporting.report import sources
from robust_distillation.reporting.structure import read_structures
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.statistics.accuracies import accuracies


@dataclass(frozen=True)
class ReportData:
    """Everything that the report's sections are made of.

    Attributes:
        experiment: its settings.
        spec: comparisons, methods, checkpoints and metrics in their order.
        data: data.json, the description of the images.
        outcomes: those of all models.
        values: accuracies in percent per run, checkpoint and metric: see `statistics.accuracies`.
        curves: training curves of all students.
        tables: by name, as in tables/NAME.csv.
        records: of all computing steps, by file.
        robustness: accuracy against eps, by file; empty if the experiment asks for none.
        structures: class correlations and feature distances: see `structure.read_structures`; empty likewise.
        transfers: accuracies on other tasks, as `values`, by target.
    """

    experiment: Experiment
    spec: TableSpec
    data: dict[str, Any]
    outcomes: pd.DataFrame
    values: pd.DataFrame
    curves: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    records: dict[Path, dict[str, Any]]
    robustness: dict[Path, dict[str, Any]]
    structures: pd.DataFrame
    transfers: dict[str, pd.DataFrame]

    @property
    def layout(self) -> Layout:
        """The places of the experiment's files."""
        return self.experiment.layout

    @property
    def table(self) -> pd.DataFrame:
        """tables/main.csv."""
        return self.tables["main"]


def load_report_data(experiment: Experiment) -> ReportData:
    """Reads the files of a finished experiment.

    Raises:
        UserError: a file is missing.
    """
    missing = [file for file in sources.sources(experiment) if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    layout = experiment.layout
    folders = sources.folders(experiment)
    outcomes = read_outcomes(layout.outcomes(folder) for folder in folders)
    return ReportData(
        experiment=experiment,
        spec=TableSpec(**experiment.matrix()),
        data=read_json(layout.data),
        outcomes=outcomes,
        values=accuracies(outcomes),
        curves=read_curves(experiment.runs, layout),
        tables={file.stem: read_table(file) for file in sources.tables(experiment)},
        records={file: read_json(file) for file in sources.records(experiment)},
        robustness={file: read_json(file) for file in sources.robustness(experiment)},
        structures=read_structures(sources.structures(experiment)),
        transfers={
            target: accuracies(read_outcomes(layout.transferred(target, folder) for folder in folders))
            for target in experiment.file.transfer
        },
    )


def read_table(file: Path) -> pd.DataFrame:
    """Reads a CSV in which only an empty cell is missing: a method may be called NA."""
    return pd.read_csv(file, keep_default_na=False, na_values=[""])
