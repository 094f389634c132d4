"""Ways of tampering with a finished experiment, each with what an audit must name: `make tamper` tries all of them."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robust_distillation.audit import verify_files
from robust_distillation.config import Experiment
from robust_distillation.evaluation.outcomes import attack_columns, write_outcomes
from robust_distillation.files import read_json, sha256, write_json
from robust_distillation.layout import Layout
from robust_distillation.models.checkpoint import read_checkpoint, save_checkpoint
from robust_distillation.pipeline.index import index
from robust_distillation.pipeline.models import models
from robust_distillation.pipeline.step import Step, called
from robust_distillation.pipeline.steps import steps


@dataclass(frozen=True)
class Tampering:
    """kind: what sort it is; touched: the files it changes; named: what the audit has to name, one of them suffices."""

    kind: str
    name: str
    apply: Callable[[], None]
    touched: tuple[Path, ...]
    named: tuple[str, ...]


@contextmanager
def undone(files: tuple[Path, ...], folder: Path) -> Iterator[None]:
    """Puts back what lay there."""
    kept = {}
    for number, file in enumerate(files):
        if file.exists():
            kept[file] = folder / str(number)
            shutil.copy2(file, kept[file])
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
            if file in kept:
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(kept[file], file)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def artefacts(experiment: Experiment) -> Iterator[Tampering]:
    """One bit of every file that a step makes."""
    for step in steps(experiment):
        for file in step.outputs:
            yield Tampering("bit", f"bit of {file}", lambda file=file: flipped(file), (file,), (str(file),))


def missing(experiment: Experiment) -> Iterator[Tampering]:
    """One file of each step, and one record, taken away."""
    for step in _one_per_step(experiment):
        for file in (step.outputs[0], step.record):
            if file == step.record or not step.rebuildable:
                yield Tampering("removed", f"no {file}", file.unlink, (file,), (str(file),))


def fields(experiment: Experiment) -> Iterator[Tampering]:
    """Every field of one record of each step, and of the index's groups."""
    for step in _one_per_step(experiment):
        for path, value in _leaves(read_json(step.record)):
            yield Tampering(
                "field", f"{step.record}: {'.'.join(path)}",
                lambda file=step.record, path=path, value=value: _edit(file, path, _other(value)),
                (step.record,), (str(step.record), *map(str, step.outputs), *map(str, step.inputs)),
            )  # fmt: skip
    place = Layout(experiment.name).index
    entries = read_json(place)
    chosen = [("experiment",), *(("mlflow", run) for run in list(entries["mlflow"])[:2])]
    chosen += [("records", name) for name in list(entries["records"])[:4]]
    chosen += [("artefacts", name, key) for name in list(entries["artefacts"])[20:24] for key in ("sha256", "record")]
    for path in chosen:
        yield Tampering(
            "index", f"{place}: {'.'.join(path)}", lambda path=path: _edit(place, path, "0" * 64), (place,),
            (str(place), *path[1:2]),
        )  # fmt: skip


def table_cells(experiment: Experiment) -> Iterator[Tampering]:
    """Numbers of every table edited by hand, with the hashes of the table rewritten in its record and in the index."""
    layout, chain = Layout(experiment.name), list(steps(experiment))
    for step in chain:
        for file in [file for file in step.outputs if file.suffix == ".csv"]:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            numbers = [
                column for column in table.columns if column not in verify_files.KEYS and _numeric(table[column])
            ]
            for row in range(0, len(table), max(1, len(table) // 4)):
                column = numbers[row % len(numbers)]
                if table.loc[row, column] == "":
                    continue
                cell = "/".join(table.loc[row, [key for key in verify_files.KEYS if key in table.columns]])
                yield Tampering(
                    "cell", f"{file}: {cell}, {column}",
                    lambda f=file, t=table, r=row, c=column, k=step: _cell(f, t, r, c, [k], layout, chain),
                    (file, step.record, layout.index), (f"{file}, cell {cell}",),
                )  # fmt: skip


def swaps(experiment: Experiment) -> Iterator[Tampering]:
    """Files of two runs exchanged: alone, and with their records."""
    layout = Layout(experiment.name)
    students = [model for model in models(experiment) if model.name not in experiment.teachers]
    pairs = list(zip(students, students[1:] + students[:1], strict=True))
    for one, other in pairs:
        for name in ("best.safetensors", "last.safetensors", "metrics.jsonl", "record.json"):
            yield _swap(one.folder / name, other.folder / name)
        groups = [
            layout.outcomes,
            layout.structure,
            layout.robustness,
            lambda folder: layout.transferred("parity", folder),
        ]
        for place in groups:
            a, b = place(one.folder), place(other.folder)
            yield _swap(a, b)
            yield _swap(layout.record(a), layout.record(b))
            yield _swap(a, b, (layout.record(a), layout.record(b)))
    for model in students:
        yield _swap(model.folder / "best.safetensors", model.folder / "last.safetensors")
    names = list(experiment.tuned)
    for one, other in itertools.pairwise(names):
        yield _swap(layout.choice(*one), layout.choice(*other))


def forgeries(experiment: Experiment) -> Iterator[Tampering]:
    """A file of each step changed, and every hash and every table that follows from it made again, the index last: all
    fits again but the committed dvc.lock."""
    layout, chain = Layout(experiment.name), list(steps(experiment))
    touched = (*(file for step in chain for file in (*step.outputs, step.record)), layout.index)
    for step in _one_per_step(experiment):
        if step.rebuildable or step.remake or step.name in ("prepare-data", "prepare-target", "choose"):
            continue  # these are held against what is in them
        file = step.outputs[0]
        yield Tampering(
            "forgery", f"{file} and all hashes below it",
            lambda file=file, step=step: _forge(experiment, chain, layout, file), touched, (str(file),),
        )  # fmt: skip
    for step in _one_per_step(experiment):
        record = step.record
        yield Tampering(
            "forgery", f"{record} and the index",
            lambda r=record: (_edit(r, ("time", "seconds"), 1.5), write_json(layout.index, index(chain, layout))),
            (record, layout.index), (str(record),),
        )  # fmt: skip


def everything(experiment: Experiment) -> list[Tampering]:
    kinds = (artefacts, missing, fields, table_cells, swaps, forgeries)
    found = [tampering for kind in kinds for tampering in kind(experiment)]
    return [tampering for tampering in found if tampering.kind != "swap" or _differ(tampering.touched)]


def _differ(files: tuple[Path, ...]) -> bool:
    """Exchanging equal files changes nothing."""
    return files[0].read_bytes() != files[1].read_bytes()


def _one_per_step(experiment: Experiment) -> list[Step]:
    found: dict[str, Step] = {}
    for step in steps(experiment):
        found[step.name] = step
    return list(found.values())


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return "other" if value is None else [*value, "other"] if isinstance(value, list) else {"other": 1}


def _edit(file: Path, path: tuple[str, ...], value: Any) -> None:
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    write_json(file, content)


def _numeric(column: pd.Series) -> bool:
    filled = column[column != ""]
    return len(filled) > 0 and pd.to_numeric(filled, errors="coerce").notna().all()


def _cell(
    file: Path, table: pd.DataFrame, row: int, column: str, makers: list[Step], layout: Layout, chain: list[Step]
) -> None:
    edited = table.copy()
    edited.loc[row, column] = f"{float(table.loc[row, column]) + 1.25:g}"
    edited.to_csv(file, index=False)
    for step in makers:
        _edit(step.record, ("outputs", str(file)), sha256(file))
    write_json(layout.index, index(chain, layout))


def _swap(one: Path, other: Path, *more: tuple[Path, Path]) -> Tampering:
    pairs = [(one, other), *more]

    def apply() -> None:
        for a, b in pairs:
            first, second = a.read_bytes(), b.read_bytes()
            a.write_bytes(second)
            b.write_bytes(first)

    files = tuple(file for pair in pairs for file in pair)
    return Tampering("swap", " and ".join(map(str, files)), apply, files, tuple(map(str, files)))


def _forge(experiment: Experiment, chain: list[Step], layout: Layout, file: Path) -> None:
    """Changes `file`, keeps it readable, and makes again whatever would give it away."""
    if file.suffix == ".parquet":
        rows = pd.read_parquet(file)
        attack = attack_columns(rows)[-1]
        rows[attack] = ~rows[attack]
        write_outcomes(file, rows)
    elif file.suffix == ".safetensors":
        state, metadata = read_checkpoint(file)
        name = next(name for name, tensor in state.items() if tensor.is_floating_point())
        save_checkpoint(file, {**state, name: state[name] + 1}, metadata)
    elif file.suffix == ".json":
        content = read_json(file)
        path, value = next((p, v) for p, v in _leaves(content) if not isinstance(v, list))
        _edit(file, path, _other(value))
    else:
        text = file.read_bytes()
        file.write_bytes(text.replace(b"1", b"2", 1))
    for step in chain:
        if step.remake:
            called(step.remake)(step)
        record = read_json(step.record)
        for group, files in (("inputs", step.inputs), ("outputs", step.outputs)):
            record[group] |= {str(made): sha256(made) for made in files}
        write_json(step.record, record)
    write_json(layout.index, index(chain, layout))
