"""What the report is about, read once."""

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
from robust_distillation.reporting.tables import Matrix
from robust_distillation.statistics.accuracies import accuracies


@dataclass(frozen=True)
class Material:
    """Everything that sections draw from."""

    experiment: Experiment
    matrix: Matrix
    data: dict[str, Any]
    outcomes: pd.DataFrame
    values: pd.DataFrame  # as `statistics.accuracies`: percent per run, checkpoint and metric
    curves: pd.DataFrame
    tables: dict[str, pd.DataFrame]  # by name, as tables/NAME.csv
    records: dict[Path, dict[str, Any]]
    robustness: dict[Path, dict[str, Any]]  # accuracy against eps, by file

    @property
    def layout(self) -> Layout:
        return self.experiment.layout

    @property
    def table(self) -> pd.DataFrame:
        return self.tables["main"]

    @property
    def strongest(self) -> str:
        """The metric of the headline."""
        return self.matrix.metrics[-1]

    @property
    def first(self) -> str:
        """The checkpoint of the headline."""
        return self.matrix.checkpoints[0]


def gather(experiment: Experiment) -> Material:
    """Raises UserError where a file is missing."""
    missing = [file for file in sources.sources(experiment) if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    layout = experiment.layout
    outcomes = read_outcomes(layout.outcomes(folder) for folder in sources.folders(experiment))
    return Material(
        experiment=experiment,
        matrix=Matrix(**experiment.matrix()),
        data=read_json(layout.data),
        outcomes=outcomes,
        values=accuracies(outcomes),
        curves=read_curves(experiment.runs, layout),
        tables={file.stem: read_table(file) for file in sources.tables(experiment)},
        records={file: read_json(file) for file in sources.records(experiment)},
        robustness={file: read_json(file) for file in sources.robustness(experiment)},
    )


def read_table(file: Path) -> pd.DataFrame:
    """A tidy table; only an empty cell is missing, for somebody may call a method NA."""
    return pd.read_csv(file, keep_default_na=False, na_values=[""])
