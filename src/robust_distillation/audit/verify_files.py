"""What is in a step's files, held against what it must be: images against their description, checkpoints and outcomes
against the run they lie under, tables against those that the same outcomes give again."""

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

KEYS = ("claim", "target", "teacher", "student", "method", "other", "candidate", "checkpoint", "metric")  # of a cell


@dataclass
class Checked:
    problems: list[tuple[Path, str, str]] = field(default_factory=list)  # file, cell, what is wrong
    notes: list[str] = field(default_factory=list)
    cells: int = 0  # compared


def check(step: Step) -> Checked:
    """Compares what is in a step's files with what must be there. Raises what reading a broken file raises."""
    checked = Checked()
    if all(file.is_file() for file in step.outputs):
        if step.check:
            called(step.check)(step, checked)
        if step.remake:
            _compare_tables(step, checked)
    return checked


def check_images(step: PrepareData, checked: Checked) -> None:
    """Compares the images here with those that data.json describes; none is fetched for it."""
    from robust_distillation import data
    from robust_distillation.pipeline.experiment_data import describe_dataset

    [written], files = step.outputs, step.files
    options = replace(files.options, download=False)
    try:
        data.registry.module(files.name).check(options)
        found = describe_dataset(files.name, options)
    except UserError as error:
        checked.notes.append(f"{written}: the images are not here, so they were not checked ({error})")
        return
    known = read_json(written)
    for split, here in found["splits"].items():
        if known.get("splits", {}).get(split) != here:
            checked.problems.append((written, "", f"does not describe the {split} images that are here"))
    if set(known) != set(found) or known["name"] != found["name"] or set(known["splits"]) != set(found["splits"]):
        checked.problems.append((written, "", f"does not describe {files.name}"))


def check_weights(step: Step, checked: Checked) -> None:
    """Compares a checkpoint's description of its training with the settings that it was to be trained with."""
    settings = json.loads(json.dumps(settings_of(step)))
    for file in step.outputs:
        if file.suffix != ".safetensors":
            continue
        about = metadata(file)
        for key, value in settings.items():
            if key == "imported":
                continue
            if isinstance(value, dict) and isinstance(about.get(key), dict):
                fits = about[key] | value == about[key]
            else:
                fits = about.get(key) == value
            if not fits:
                checked.problems.append((file, "", f"says of itself another {key} than the experiment"))


def metadata(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    from robust_distillation.models.checkpoint import KEY

    with safe_open(str(file), framework="np") as opened:
        return json.loads((opened.metadata() or {}).get(KEY, "{}"))


def check_outcomes(step: OfModel, checked: Checked) -> None:
    """Compares the rows with this model's: checkpoint by checkpoint, each image once."""
    from robust_distillation.evaluation.outcomes import read_outcomes

    [file], model = step.outputs, step.model
    rows = read_outcomes([file])
    keys = rows[list(model.keys)].drop_duplicates().to_dict("records")
    if keys != [model.keys] or set(rows["checkpoint"]) != set(model.checkpoints):
        checked.problems.append((file, "", "holds the rows of another model"))
    elif rows.duplicated(["checkpoint", "index"]).any():
        checked.problems.append((file, "", "holds an image twice"))


def _compare_tables(step: Step, checked: Checked) -> None:
    """Makes a step's tables again, elsewhere, and compares."""
    with tempfile.TemporaryDirectory() as folder:
        again = step.elsewhere(Path(folder))
        called(step.remake)(again)
        for file, true in zip(step.outputs, again.outputs, strict=True):
            if file.suffix[1:] in DRAWN:
                continue
            if file.suffix == ".csv":
                checked.cells += _cells(true)
            if file.read_bytes() == true.read_bytes():
                continue
            cells = list(_differences(file, true)) if file.suffix == ".csv" else []
            for cell, problem in cells or [("", "is not what its outcomes give")]:
                checked.problems.append((file, cell, problem))


def _cells(file: Path) -> int:
    import pandas as pd

    table = pd.read_csv(file)
    return sum(table[column].notna().sum() for column in table.columns if column not in KEYS)


def _differences(file: Path, true: Path) -> Iterator[tuple[str, str]]:
    """(cell, what is wrong) for each cell of a CSV that is another in the true one."""
    import pandas as pd

    here, made = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (file, true))
    if list(here.columns) != list(made.columns) or len(here) != len(made):
        return
    keys = [key for key in KEYS if key in made.columns]
    for row in range(len(made)):
        name = "/".join(made.loc[row, keys])
        for column in made.columns:
            if here.loc[row, column] != made.loc[row, column]:
                problem = f"{column} is {here.loc[row, column]!r}; the outcomes give {made.loc[row, column]!r}"
                yield f", cell {name}", problem


def check_choice(step: Choose, checked: Checked) -> None:
    """Compares the choice with what the short runs say."""
    from robust_distillation.pipeline.tuned import choice
    from robust_distillation.training import tuning

    chosen, compared = step.outputs
    names = step.values["teacher"], step.values["student"], step.values["method"]
    candidates = step.experiment.candidates[names[-1]]
    runs = {name: read_json_lines(file) for name, file in zip(candidates, step.inputs, strict=True)}
    best, scores = tuning.choose(runs)
    if read_json(chosen) != choice(*names, candidates[best]):
        checked.problems.append((chosen, "", f"is not what the short runs say: {best} is the best of them"))
    written = read_json(compared)
    known = [{"name": name, **candidates[name].resolved(), **scores[name]} for name in candidates]
    if written["candidates"] != known or written["chosen"] != best:
        checked.problems.append((compared, "", "is not what the short runs say"))


def settings_of(step: Step) -> dict[str, Any]:
    """Returns the settings that a step's record must name: a student's are those after the tuning stage's choice."""
    from robust_distillation.pipeline.steps import TrainStudent

    if isinstance(step, TrainStudent) and step.choice:
        from robust_distillation.pipeline.tuned import tuned

        with suppress(UserError):  # no choice, or a broken one: then those before it
            return tuned(step)[0]
    return step.settings
