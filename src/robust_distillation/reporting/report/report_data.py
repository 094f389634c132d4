"""The contents of the report, read from the experiment's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import read_json, read_table
from robust_distillation.layout import Layout
from robust_distillation.reporting.curves import read_curves
from robust_distillation.reporting.report import sources
from robust_distillation.reporting.structure import read_structures
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.statistics.accuracies import accuracies


@dataclass(frozen=True)
class ReportData:
    """All data that the sections of the report are made of. `load_report_data` reads them from the experiment's files.

    A network is a teacher, or a student of one method and seed. The columns `teacher`, `student`, `method` and `seed`
    identify it. The student of a row about a teacher is `-`, and the teacher of a method without a teacher is `none`.

    Attributes:
        experiment: the parsed experiment file with all defaults filled in.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())`: `comparisons` (pairs of teacher and
            student), `methods`, `checkpoints` and `metrics`.
        data: contents of results/EXPERIMENT/data.json: the size and the hash of each split of the dataset.
        outcomes: one row for each network, checkpoint and test image. Columns: the four that identify a network,
            `checkpoint`, `index`, `label`, `prediction`, `block` (number of the batch of images that were attacked
            together), `attack_seed` (seed of the attacks on that batch), and one bool column for each attack (True: the
            clean and the adversarial image are both classified correctly).
        values: one row for each network, checkpoint and metric. Columns: the four that identify a network,
            `checkpoint`, `metric` (`clean`, an attack or METRIC.ATTACK), `n_images` and `value` (accuracy in percent,
            another metric in its unit).
        curves: one row for each student training and epoch. Columns: the four that identify a network, and the values
            of metrics.jsonl, such as `epoch`, `selection_clean` and `selection_robust` (accuracies in [0, 1]).
        tables: name of a table, such as `main`, `comparisons` or `claims`, to the contents of tables/NAME.csv.
        records: path of a record, such as results/digits/students/wide/small/rslad/seed-0/record.json, to its contents,
            for each job that prepares data or that trains, attacks or analyses a network. A record is the JSON file
            beside an output: its inputs, settings, code hash and hashes of the outputs.
        robustness: path of a JSON file, such as results/digits/robustness/students/wide/small/rslad/seed-0.json, to its
            contents: the accuracy of a network against eps. Empty if the experiment file has no entry `robustness`.
        structures: one row for each network: class correlations and feature distances, as `structure.read_structures`
            returns them. Empty if the experiment file has no entry `structure`.
        transfers: name of a transfer target (another dataset), such as `parity`, to the accuracies on its test images,
            with the columns of `values`. Empty if the experiment file has no entry `transfer`.
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
        """The object that gives the paths of all files of the experiment."""
        return self.experiment.layout

    @property
    def table(self) -> pd.DataFrame:
        """The main table, tables/main.csv: means over the seeds, of accuracies in percent.

        There is a row for each teacher, student, method, checkpoint and metric. Columns: teacher, student, method,
        protocol, checkpoint, metric, n_seeds, n_images, mean, sd, ci_low, ci_high, published, difference (mean minus
        published), mark (how reliable the published number is). The last three are missing if no published number is
        known.
        """
        return self.tables["main"]


def load_report_data(experiment: Experiment) -> ReportData:
    """Reads all files that the report is made of.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            All steps before the report must have been run.

    Returns:
        The contents of the files, such as `table` (the main table), `values` (accuracies of each seed) and `records`
        (of all jobs).

    Raises:
        UserError: if a file is missing, if a JSON file or an outcome file is damaged, or if the seeds of a method, or a
            student and its teacher, were not attacked on the same images.
    """
    missing = [file for file in sources.sources(experiment) if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    layout, spec = experiment.layout, TableSpec(**experiment.matrix())
    folders = sources.folders(experiment)
    outcomes = read_outcomes(layout.outcomes(folder) for folder in folders)
    return ReportData(
        experiment=experiment,
        spec=spec,
        data=read_json(layout.data),
        outcomes=outcomes,
        values=accuracies(outcomes, spec.further),
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
