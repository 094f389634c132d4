"""Checks the content of a step's files.

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
from robust_distillation.files import read_json, read_json_lines
from robust_distillation.layout import DRAWN
from robust_distillation.pipeline.step import Step, called

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Choose, OfModel, PrepareData

# Columns that name a cell of a table.
KEYS = ("claim", "target", "teacher", "student", "method", "other", "candidate", "checkpoint", "metric")


@dataclass
class Checked:
    """Result of checking the files of a step.

    Attributes:
        problems: for each mistake the file, the table cell (`, cell NAME`, or "" for the whole file) and what is wrong.
        notes: what could not be checked, and why.
        cells: number of table cells that were computed again.
    """

    problems: list[tuple[Path, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cells: int = 0


def check(step: Step) -> Checked:
    """Checks the content of a step's files, if all of them exist.

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
    """Compares the images on this machine with those that data.json describes. No image is downloaded.

    Args:
        step: the step that wrote data.json.
        checked: result to which problems and notes are added.
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


def check_weights(step: Step, checked: Checked) -> None:
    """Compares the metadata of checkpoints with the settings of the step that trained them.

    Args:
        step: the step that made the checkpoints.
        checked: result to which problems are added.
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
    """Reads the metadata of a checkpoint: architecture, settings, epoch. Empty if there is none."""
    from safetensors import safe_open

    from robust_distillation.models.checkpoint import KEY

    with safe_open(str(file), framework="np") as opened:
        return json.loads((opened.metadata() or {}).get(KEY, "{}"))


def check_outcomes(step: OfModel, checked: Checked) -> None:
    """Checks that outcomes are those of one model, with each image once per checkpoint.

    Args:
        step: the step that made the outcomes, with the model that it attacked.
        checked: result to which problems are added.
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
    import pandas as pd

    table = pd.read_csv(file)
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
    """Compares the candidate that tuning selected with the results of its short runs.

    Args:
        step: the step that selected it.
        checked: result to which problems are added.
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
    """Returns the settings that a step's record must have. A student's include the values that tuning selected."""
    from robust_distillation.pipeline.steps import TrainStudent

    if isinstance(step, TrainStudent) and step.choice:
        from robust_distillation.pipeline.tuned import tuned

        with suppress(UserError):  # the file of the choice is missing or damaged: the settings without it
            return tuned(step)[0]
    return step.settings
