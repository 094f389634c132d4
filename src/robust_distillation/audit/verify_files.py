"""Checks the content of the files that a step (one job of an experiment) made.

Images are checked against their description, checkpoints and outcomes against the run in whose folder they lie, and
tables against the same tables made again from the outcomes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_distillation.errors import UserError
from robust_distillation.files import read_json, read_json_lines, read_table
from robust_distillation.layout import DRAWN
from robust_distillation.pipeline.step import Step, called

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Choose, OfModel, PrepareData, PrepareExtra

# Columns that name a cell of a table.
KEYS = ("claim", "target", "teacher", "student", "method", "other", "candidate", "checkpoint", "metric")


@dataclass
class Checked:
    """Result of checking the files that one job made.

    Attributes:
        problems: a triple for each mistake. First the path of the file. Then the table cell, such as
            `, cell wide/small/rslad/best/clean`, or "" if the mistake is about the whole file. Then the description of
            the mistake, such as `holds an image twice`.
        notes: sentences about what could not be checked.
        cells: number of numbers in CSV tables that were computed again from the outcomes.
    """

    problems: list[tuple[Path, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cells: int = 0


def check(step: Step) -> Checked:
    """Checks the content of the files that a job made.

    The check is the function of this module that `step.check` names: `check_images`, `check_weights`, `check_outcomes`
    or `check_choice`. If `step.remake` names a function, the job's tables are also made again by that function, in a
    temporary folder, and compared cell by cell. The job's files stay unchanged.

    Args:
        step: one job of an experiment, such as the training of one student: an element of
            `pipeline.steps.steps(experiment)`. `step.outputs` are the paths of the files to check.

    Returns:
        A Checked with the fields `problems` (mistakes), `notes` (what could not be checked) and `cells` (number of
        numbers in CSV tables that were compared). All are empty or 0 if an output file is missing, or if `step.check`
        and `step.remake` are empty.

    Raises:
        OSError, UserError, ValueError, KeyError, TypeError: if a file is damaged and cannot be read.
    """
    checked = Checked()
    if all(file.is_file() for file in step.outputs):
        if step.check:
            called(step.check)(step, checked)
        if step.remake:
            _compare_tables(step, checked)
    return checked


def check_images(step: PrepareData, checked: Checked) -> None:
    """Compares the images of a dataset on this machine with their description in results/EXPERIMENT/data.json.

    No image is downloaded. The command `prepare-data` wrote the description. If images are missing, this is a note and
    no mistake.

    Args:
        step: the job that wrote the description, an instance of `pipeline.steps.PrepareData`. Its one output is
            data.json, with the dataset's name, and the size and sha256 of each split.
        checked: the result to fill, a Checked: for each mistake a triple (path, table cell or "", description) is
            appended to `checked.problems`, and sentences about what could not be checked to `checked.notes`.
    """
    from robust_distillation import data
    from robust_distillation.pipeline.experiment_data import describe_dataset

    [written], files = step.outputs, step.files
    options = replace(files.options, download=False)
    try:
        data.registry.module(files.name).check(options)
        present = describe_dataset(files.name, options)
    except UserError as error:
        checked.notes.append(f"{written}: the images are not on this machine, so they were not checked ({error})")
        return
    described = read_json(written)
    for split, facts in present["splits"].items():
        if described.get("splits", {}).get(split) != facts:
            checked.problems.append((written, "", f"does not describe the {split} images on this machine"))
    same_keys = set(described) == set(present) and set(described["splits"]) == set(present["splits"])
    if not same_keys or described["name"] != present["name"]:
        checked.problems.append((written, "", f"does not describe {files.name}"))


def check_extra(step: PrepareExtra, checked: Checked) -> None:
    """Compares the extra training images on this machine with the description that the step prepare-extra wrote.

    If they are missing, this is a note and no mistake.

    Args:
        step: the job that wrote the description: its one output is results/EXPERIMENT/extra/data.json.
        checked: the result to fill: mistakes are appended to `checked.problems`, notes to `checked.notes`.
    """
    from robust_distillation.pipeline.training_data import describe_extra

    [written] = step.outputs
    try:
        present = describe_extra(step.experiment)
    except UserError as error:
        checked.notes.append(f"{written}: the extra images are not on this machine, so they were not checked ({error})")
        return
    if read_json(written) != present:
        checked.problems.append((written, "", "does not describe the extra images on this machine"))


def check_weights(step: Step, checked: Checked) -> None:
    """Compares the metadata in checkpoint files with the settings of the job that made them.

    Every setting must be in the metadata with the same value; the metadata may have more entries. The setting
    `imported` (source of published weights) is left out. The weights are not read.

    Args:
        step: the job that trained or imported a network, such as an instance of `pipeline.steps.TrainStudent`. Those of
            its outputs with the suffix .safetensors are checked.
        checked: the result to fill, a Checked: for each mistake a triple (path, table cell or "", description) is
            appended to `checked.problems`.
    """
    settings = json.loads(json.dumps(settings_of(step)))
    for file in step.outputs:
        if file.suffix != ".safetensors":
            continue
        written = metadata(file)
        for key, value in settings.items():
            if key == "imported":
                continue
            if isinstance(value, dict) and isinstance(written.get(key), dict):
                matches = written[key] | value == written[key]
            else:
                matches = written.get(key) == value
            if not matches:
                checked.problems.append((file, "", f"its metadata has another {key} than the experiment"))


def metadata(file: Path) -> dict[str, Any]:
    """Reads the metadata of a checkpoint, without its weights.

    Args:
        file: path of a .safetensors file.

    Returns:
        The metadata that the training or import wrote, for example
        `{"architecture": {"name": "convnet", ...}, "epoch": 17, "seed": 0, ...}`. Empty if the file has none.

    Raises:
        OSError: if the file is missing.
        safetensors.SafetensorError: if the file is damaged.
    """
    from safetensors import safe_open

    from robust_distillation.models.checkpoint import KEY

    with safe_open(str(file), framework="np") as opened:
        return json.loads((opened.metadata() or {}).get(KEY, "{}"))


def check_outcomes(step: OfModel, checked: Checked) -> None:
    """Checks that a file of outcomes is about one network only and has each image once per checkpoint.

    Outcomes are a Parquet file with one row per checkpoint and test image: correct or not under each attack.

    Args:
        step: the job that wrote the file, its one output (Parquet). `step.model` is the network that it attacked: its
            `keys` are the values of the columns `teacher`, `student`, `method` and `seed`, and its `checkpoints` the
            names of the checkpoints.
        checked: the result to fill, a Checked: for each mistake a triple (path, table cell or "", description) is
            appended to `checked.problems`.

    Raises:
        UserError: if the file does not match the checksum in it or cannot be read.
    """
    from robust_distillation.evaluation.outcomes import read_outcomes

    [file], model = step.outputs, step.model
    rows = read_outcomes([file])
    keys = rows[list(model.keys)].drop_duplicates().to_dict("records")
    if keys != [model.keys] or set(rows["checkpoint"]) != set(model.checkpoints):
        checked.problems.append((file, "", "holds the rows of another model"))
    elif rows.duplicated(["checkpoint", "index"]).any():
        checked.problems.append((file, "", "holds an image twice"))


def _compare_tables(step: Step, checked: Checked) -> None:
    """Makes the tables of a step again in a temporary folder, and compares them with the present ones."""
    with tempfile.TemporaryDirectory() as folder:
        again = step.elsewhere(Path(folder))
        called(step.remake)(again)
        for file, made in zip(step.outputs, again.outputs, strict=True):
            if file.suffix[1:] in DRAWN:
                continue
            if file.suffix == ".csv":
                checked.cells += _cells(made)
            if file.read_bytes() == made.read_bytes():
                continue
            cells = list(_differences(file, made)) if file.suffix == ".csv" else []
            for cell, problem in cells or [("", "is not what its outcomes give")]:
                checked.problems.append((file, cell, problem))


def _cells(file: Path) -> int:
    """Counts the numbers of a CSV table."""
    table = read_table(file)
    return sum(table[column].notna().sum() for column in table.columns if column not in KEYS)


def _differences(file: Path, made: Path) -> Iterator[tuple[str, str]]:
    """Yields name and problem of each cell of a CSV table that differs from the table `made` again."""
    import pandas as pd

    present, expected = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (file, made))
    if list(present.columns) != list(expected.columns) or len(present) != len(expected):
        return
    keys = [key for key in KEYS if key in expected.columns]
    for row in range(len(expected)):
        name = "/".join(expected.loc[row, keys])
        for column in expected.columns:
            if present.loc[row, column] != expected.loc[row, column]:
                problem = f"{column} is {present.loc[row, column]!r}; the outcomes give {expected.loc[row, column]!r}"
                yield f", cell {name}", problem


def check_choice(step: Choose, checked: Checked) -> None:
    """Compares the hyperparameters that the tuning stage chose with the results of its short trainings.

    A candidate is one combination of hyperparameter values, tried in a short training. The candidate with the highest
    accuracy is chosen. The choice is made again from the validation accuracies in the metrics.jsonl of all candidates,
    and compared with the files choice.json and candidates.json in results/EXPERIMENT/tuning/TEACHER/STUDENT/METHOD.

    Args:
        step: the job that made the choice for one teacher, student and distillation method, an instance of
            `pipeline.steps.Choose`. Its outputs are the two files.
        checked: the result to fill, a Checked: for each mistake a triple (path, table cell or "", description) is
            appended to `checked.problems`.

    Raises:
        UserError: if a file cannot be read, or if the training of every candidate diverged.
    """
    from robust_distillation.pipeline.tuned import choice
    from robust_distillation.training import tuning

    choice_file, scores_file = step.outputs
    names = step.values["teacher"], step.values["student"], step.values["method"]
    candidates = step.experiment.candidates[names[-1]]
    runs = {name: read_json_lines(file) for name, file in zip(candidates, step.inputs, strict=True)}
    best, scores = tuning.choose(runs)
    if read_json(choice_file) != choice(*names, candidates[best]):
        checked.problems.append((choice_file, "", f"does not follow from the short runs: {best} is the best of them"))
    written = read_json(scores_file)
    expected = [{"name": name, **candidates[name].resolved(), **scores[name]} for name in candidates]
    if written["candidates"] != expected or written["chosen"] != best:
        checked.problems.append((scores_file, "", "does not follow from the short runs"))


def settings_of(step: Step) -> dict[str, Any]:
    """Returns the settings that the record of a job must have.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.

    Args:
        step: one job of an experiment, such as the training of one student: an element of
            `pipeline.steps.steps(experiment)`.

    Returns:
        Name of each setting to a JSON value, such as `{"method": {...}, "seed": 0, ...}`. It equals `step.settings`,
        except for the training of a student whose hyperparameters the tuning stage chose: there the chosen values are
        put in. If the file of the choice is missing or damaged, the result is `step.settings`.
    """
    from robust_distillation.pipeline.steps import TrainStudent

    if isinstance(step, TrainStudent) and step.choice:
        from robust_distillation.pipeline.tuned import tuned

        with suppress(UserError):  # the file of the choice is missing or damaged: the settings without it
            return tuned(step)[0]
    return step.settings
