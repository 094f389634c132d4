"""Traces one number of the main table back to its data: files, steps, settings, machines and times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robust_distillation import metrics
from robust_distillation.audit.verify_files import metadata
from robust_distillation.columns import CHECKPOINT, METRIC, NO_TEACHER
from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.files import read_json, read_json_lines, read_table
from robust_distillation.layout import Layout
from robust_distillation.pipeline.step import Step
from robust_distillation.pipeline.steps import steps
from robust_distillation.pipeline.text import commit, machine, versions, when
from robust_distillation.reference.published import MARKS
from robust_distillation.reporting.cells import Cell, values_of
from robust_distillation.reporting.table_spec import TableSpec, metric_title, number_of

Section = tuple[str, list[str]]  # a title and its lines


def trace_cell(experiment: Experiment, cell: Cell) -> list[Section]:
    """Collects the origin of one number of the main table as text.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            Its results must exist.
        cell: the number, named by teacher, student, method, checkpoint and metric as in its row of tables/main.csv,
            such as `Cell("wide", "small", "rslad", "best", "autoattack")`. `reporting.cells.cell_named` makes it from
            text.

    Returns:
        Sections, each a pair of a title and its lines, such as `("Seed 0: 41.20 %", ["made by robust-distillation
        attack ...", ...])`. The first section has the number with its interval and published values. One section for
        each seed follows, with the accuracy and the files, commands, machines and times behind it. Then come the
        settings and package versions of the training, and the earlier jobs (tuning, training of the teacher, its cached
        outputs, data), the latest first. The last section has the commands that check the number. If the record of a
        job is missing, a line reports that. A record is the JSON file beside an output: its inputs, settings, code hash
        and hashes of the outputs.

    Raises:
        UserError: if the main table does not exist or lacks the number, or if an outcomes file (one row per checkpoint
            and test image: correct or not under each attack) is missing or damaged.
    """
    layout = experiment.layout
    table = layout.tables / "main.csv"
    if not table.is_file():
        raise UserError(f"{table}: is not there yet. Run the experiment first: robust-distillation reproduce")
    rows = read_table(table)
    found = rows[(rows[list(Cell._fields)] == list(cell)).all(axis=1)]
    if found.empty:
        raise UserError(f"{table}: has no {cell}: {cell.metric} is not defined for it, or the table is older")
    row = found.iloc[0]
    makers = {file: step for step in steps(experiment) for file in step.outputs}
    sections = [("The number", list(_number(experiment, cell, row)))]
    last_steps = {}
    for model in cell.models(experiment):
        outcomes, weights = layout.outcomes(model.folder), model.checkpoints[cell.checkpoint]
        values = values_of(experiment, model, [cell.metric] if "." in cell.metric else [])
        [value] = values.loc[values[CHECKPOINT].eq(cell.checkpoint) & values[METRIC].eq(cell.metric), "value"]
        last_steps |= {outcomes: makers[outcomes], weights: makers[weights]}
        lines = [*_made(makers[outcomes], outcomes), *_made(makers[weights], weights), *_taken(model.folder, weights)]
        sections.append((f"Seed {model.keys['seed']}: {_text(cell, value)}", lines))
    trained = makers[weights]
    if trained.record.is_file():
        lines = [*_settings(trained), f"versions: {versions(read_json(trained.record))}"]
        sections.append(("How it was trained", lines))
    records = {step.record for step in last_steps.values()}
    with_teacher = "teacher" in metrics.get(cell.metric).needs
    compared = [layout.outcomes(layout.teacher(cell.teacher))] if with_teacher else []
    for step in _upstream(makers, [*last_steps, *compared]):
        if step.record not in records:
            sections.append((_title(step), [*_made(step), *_settings(step)]))
    sections.append(("To check it", _checks(experiment, cell)))
    return sections


def _number(experiment: Experiment, cell: Cell, row: Any) -> Iterator[str]:
    threat, of = experiment.threat_model, experiment.dataset.name
    number, what = number_of(cell.metric), "" if "." in cell.metric else " accuracy"
    sd = "" if math.isnan(row.sd) else f" ± {number(row.sd)} (sample standard deviation over the seeds)"
    yield f"{cell}: {_text(cell, row['mean'])}{sd}"
    yield (
        f"{metric_title(cell.metric)}{what} on {row.n_images} test images of {of}, {threat.norm} eps "
        f"{threat.eps:.4g}, {experiment.file.protocol} protocol, checkpoint {cell.checkpoint}, seeds: {row.n_seeds}"
    )
    if not math.isnan(row.ci_low):
        yield f"95 % interval of the mean: {number(row.ci_low)} to {number(row.ci_high)}"
    for entry in TableSpec(**experiment.matrix()).known(row):
        yield (
            f"published: {entry.value:.2f} in {entry.paper}, {entry.table} ({MARKS[entry.mark]}); "
            f"ours less published: {row['mean'] - entry.value:+.2f}"
        )
    yield f"stands in {experiment.layout.tables}/main.csv"


def _text(cell: Cell, value: float) -> str:
    """Formats a value of the cell's metric: 51.23 % of a percentage, 0.412 of a fraction."""
    return number_of(cell.metric)(value) + (" %" if metrics.get(cell.metric).unit == "percent" else "")


def _made(step: Step, file: Path | None = None) -> Iterator[str]:
    """Yields what a step's record says of its files: hashes, command, time, machine, commit and inputs."""
    if not step.record.is_file():
        yield f"{step.command}: its record {step.record} is missing"
        return
    record = read_json(step.record)
    for output in [file] if file else step.outputs:
        yield f"{output}  sha256 {record['outputs'].get(str(output), 'not in the record')[:16]}"
    yield f"made by robust-distillation {step.command}"
    yield f"{when(record)}, on {machine(record['hardware'])}; {commit(record)}, code {record['code'][:12]}"
    if read := record["inputs"]:
        yield f"from {', '.join(read)}"


def _settings(step: Step) -> Iterator[str]:
    """Yields the settings of a training."""
    if not step.record.is_file():
        return
    record = read_json(step.record)
    for key in ("method", "architecture", "training"):
        if key in record["settings"]:
            yield f"{key}: {_flat(record['settings'][key])}"


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_flat(value) if isinstance(value, dict) else value}" for key, value in values.items())


def _taken(folder: Path, weights: Path) -> list[str]:
    """Describes at which epoch a checkpoint was taken, and its accuracy in the validation of that epoch."""
    epoch = metadata(weights).get("epoch")
    if epoch is None:  # imported
        return []
    lines = {line["epoch"]: line for line in read_json_lines(Layout.curves(folder))}
    line = lines.get(epoch, {})
    if "selection_robust" not in line:
        return [f"taken after epoch {epoch}"]
    accuracy = f"clean {100 * line['selection_clean']:.2f} %, under attack {100 * line['selection_robust']:.2f} %"
    return [f"taken after epoch {epoch}; on the images that select `best`: {accuracy}"]


def _upstream(makers: dict[Path, Step], files: list[Path]) -> list[Step]:
    """Lists the steps that made `files` and their inputs, nearest first, each once."""
    upstream: dict[Path, Step] = {}
    while files:
        reached = [makers[file] for file in files if file in makers]
        reached = [step for step in {step.record: step for step in reached}.values() if step.record not in upstream]
        upstream |= {step.record: step for step in reached}
        files = [file for step in reached for file in step.inputs]
    return list(upstream.values())


def _title(step: Step) -> str:
    titles = {
        "attack": "The predictions of the teacher", "train-teacher": "The teacher", "import-teacher": "The teacher",
        "fill-cache": "The cache of the teacher", "prepare-data": "The data", "prepare-extra": "The extra images",
        "label-extra": "Their labels", "choose": "How its settings were chosen",
    }  # fmt: skip
    return titles.get(step.name, step.name)


def _checks(experiment: Experiment, cell: Cell) -> list[str]:
    options = experiment.arguments.removeprefix("--experiment params.yaml").strip()
    options = f" {options}" if options else ""
    lines = [f"robust-distillation audit{options}", f"robust-distillation audit --recompute 5{options}"]
    if cell.teacher != NO_TEACHER:
        lines.append(f"robust-distillation explain {cell.teacher}/-/...{options}  (the teacher's own numbers)")
    return lines


def format_sections(sections: list[Section]) -> str:
    """Joins sections to one text: titles, each followed by its lines, with an empty line between sections.

    Args:
        sections: pairs of a title and its lines, as `trace_cell` returns them.

    Returns:
        The text, without a newline at the end. Lines are indented by two spaces, titles are not.
    """
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections)
