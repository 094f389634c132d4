"""What is in a step's files, held against what it must be: images against their description, checkpoints and outcomes
against the run they lie under, tables against those that the same outcomes give again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.files import read_json, read_json_lines
from robust_distillation.layout import Layout
from robust_distillation.pipeline.links import Link, evidence, models

KEYS = ("claim", "target", "teacher", "student", "method", "other", "candidate", "checkpoint", "metric")  # of a cell


@dataclass
class Checked:
    problems: list[tuple[Path, str, str]] = field(default_factory=list)  # file, cell, what is wrong
    notes: list[str] = field(default_factory=list)
    cells: int = 0  # compared


def check(experiment: Experiment, link: Link) -> Checked:
    """Raises what reading a broken file raises."""
    checked = Checked()
    if link.step in CHECKS and all(file.is_file() for file in link.outputs):
        CHECKS[link.step](experiment, link, checked)
    return checked


def _images(experiment: Experiment, link: Link, checked: Checked) -> None:
    """Whether the images here are those that data.json describes; none is fetched for it."""
    from robust_distillation import data
    from robust_distillation.pipeline.experiment_data import description

    [written] = link.outputs
    datasets = [(Layout(experiment.name).data, experiment.dataset)]
    layout = Layout(experiment.name)
    datasets += [(layout.target_data(name), transfer.dataset) for name, transfer in experiment.file.transfer.items()]
    files = dict(datasets)[written]
    options = replace(files.options, download=False)
    try:
        data.registry.module(files.name).check(options)
        found = description(files.name, options)
    except UserError as error:
        checked.notes.append(f"{written}: the images are not here, so they were not checked ({error})")
        return
    known = read_json(written)
    for split, here in found["splits"].items():
        if known.get("splits", {}).get(split) != here:
            checked.problems.append((written, "", f"does not describe the {split} images that are here"))
    if set(known) != set(found) or known["name"] != found["name"] or set(known["splits"]) != set(found["splits"]):
        checked.problems.append((written, "", f"does not describe {files.name}"))


def _weights(experiment: Experiment, link: Link, checked: Checked) -> None:
    """Whether a checkpoint's own description says the settings that it was to be trained with."""
    for file in link.outputs:
        if file.suffix != ".safetensors":
            continue
        about = metadata(file)
        for key, value in json.loads(json.dumps(link.settings)).items():
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


def _outcomes(experiment: Experiment, link: Link, checked: Checked) -> None:
    """Whether the rows are those of this model, checkpoint by checkpoint, each image once."""
    from robust_distillation.evaluation.outcomes import read_outcomes

    [file] = link.outputs
    model = next(model for model in models(experiment) if link.name.split()[1] == model.name)
    rows = read_outcomes([file])
    keys = rows[list(model.keys)].drop_duplicates().to_dict("records")
    if keys != [model.keys] or set(rows["checkpoint"]) != set(model.checkpoints):
        checked.problems.append((file, "", "holds the rows of another model"))
    elif rows.duplicated(["checkpoint", "index"]).any():
        checked.problems.append((file, "", "holds an image twice"))


def _tables(make: Callable[[Experiment, Link, Layout], None]) -> Callable[[Experiment, Link, Checked], None]:
    """Makes a step's tables again, elsewhere, and compares."""

    def compared(experiment: Experiment, link: Link, checked: Checked) -> None:
        with tempfile.TemporaryDirectory() as folder:
            here, again = Layout(experiment.name), Layout(experiment.name, Path(folder))
            make(experiment, link, again)
            for file in link.outputs:
                if file.suffix in (".png", ".pdf"):
                    continue
                true = again.root / file.relative_to(here.root)
                if file.suffix == ".csv":
                    checked.cells += _cells(true)
                if file.read_bytes() == true.read_bytes():
                    continue
                cells = list(_differences(file, true)) if file.suffix == ".csv" else []
                for cell, problem in cells or [("", "is not what its outcomes give")]:
                    checked.problems.append((file, cell, problem))

    return compared


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


def _main(experiment: Experiment, link: Link, into: Layout) -> None:
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.reporting import tables

    tables.write(read_outcomes(link.inputs), tables.Matrix(**experiment.matrix()), into)


def _structure(experiment: Experiment, link: Link, into: Layout) -> None:
    from robust_distillation.reporting import structure
    from robust_distillation.reporting.tables import Matrix

    structure.write_tables([read_json(file) for file in link.inputs], Matrix(**experiment.matrix()), into.tables)


def _transfer(experiment: Experiment, link: Link, into: Layout) -> None:
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.reporting import transfer
    from robust_distillation.reporting.tables import Matrix

    target = link.name.split()[1]
    matrix = Matrix(**experiment.matrix()).transferred(experiment.file.transfer[target].attacks)
    transfer.write_tables(read_outcomes(link.inputs), matrix, target, into.tables)


def _comparisons(experiment: Experiment, link: Link, into: Layout) -> None:
    from robust_distillation.reporting import claims

    claims.write(experiment, evidence(experiment), into.tables)


def _tuning(experiment: Experiment, link: Link, into: Layout) -> None:
    from robust_distillation.reporting import tuning

    tuning.write_tables([read_json(file) for file in link.inputs], link.settings, into.tables)


def _choice(experiment: Experiment, link: Link, checked: Checked) -> None:
    """Whether the choice is what the short runs say."""
    from robust_distillation.training import tuning

    chosen, compared = link.outputs
    candidates = experiment.candidates[link.name.split("/")[-1]]
    runs = {name: read_json_lines(file) for name, file in zip(candidates, link.inputs, strict=True)}
    best, scores = tuning.choose(runs)
    names = link.name.split()[1].split("/")
    if read_json(chosen) != tuning.choice(*names, candidates[best]):
        checked.problems.append((chosen, "", f"is not what the short runs say: {best} is the best of them"))
    written = read_json(compared)
    known = [{"name": name, **candidates[name].resolved(), **scores[name]} for name in candidates]
    if written["candidates"] != known or written["chosen"] != best:
        checked.problems.append((compared, "", "is not what the short runs say"))


CHECKS: dict[str, Callable[[Experiment, Link, Checked], None]] = {
    "prepare-data": _images,
    "train-teacher": _weights,
    "import-teacher": _weights,
    "train-student": _weights,
    "attack": _outcomes,
    "merge-outcomes": _outcomes,
    "tabulate": _tables(_main),
    "choose": _choice,
    "report-tuning": _tables(_tuning),
    "compare": _tables(_comparisons),
    "report-structure": _tables(_structure),
    "report-transfer": _tables(_transfer),
}
