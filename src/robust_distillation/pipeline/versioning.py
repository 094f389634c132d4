"""Writes the DVC stage of an experiment: Snakemake decides which jobs run, DVC versions their results."""

from __future__ import annotations

import re
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.files import write_text
from robust_distillation.layout import Layout
from robust_distillation.pipeline.steps import Index

FILE = Path("dvc.yaml")


def stage_name(experiment: Experiment) -> str:
    """Returns the name of an experiment's stage in dvc.yaml: the experiment's name with _ for dots, which DVC does not
    allow.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. For the name `cifar10.v2` the result is
            `cifar10_v2`.
    """
    return experiment.name.replace(".", "_")


def stage(experiment: Experiment, files: list[str]) -> dict[str, Any]:
    """Makes the stage of an experiment in dvc.yaml, by which DVC versions its results. Writes nothing.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        files: path of the experiment file and, if there is one, of the overlay (a YAML file whose values replace those
            of the experiment file), relative to the checkout, for example ["params.yaml"].

    Returns:
        The mapping below `stages: NAME:` in dvc.yaml: `cmd` (the command line that runs Snakemake), `deps` (paths of
        the code), `params` (the `files`), `outs` (paths of all versioned results; DVC keeps them while the stage runs)
        and `metrics` (the folder of main accuracies).
    """
    config = [f"{key}={file}" for key, file in zip(("experiment", "overlay"), files, strict=False)]
    layout = experiment.layout
    return {
        # src first: a run in a temporary folder (dvc exp run --temp) then uses the code of that folder.
        "cmd": f"PYTHONPATH=src:$PYTHONPATH snakemake --config {shlex.join(config)}",
        "deps": ["Snakefile", "workflow", "src"],
        "params": [{file: None} for file in files],
        "outs": [_out(path) for path in _artefacts(experiment, layout)] + [_out(layout.tables, cache=False)],
        "metrics": [_out(layout.metrics, cache=False)],
    }


def _artefacts(experiment: Experiment, layout: Layout) -> list[Path]:
    """Lists the folders and files that DVC versions.

    These are all results except tables and metrics (they are in git), the cache (it can be filled again) and logs.
    """
    results = [file.relative_to(layout.root).parts[0] for file in (*Index(experiment).inputs, layout.index)]
    in_git = (layout.tables.name, layout.metrics.name)
    return [layout.root / name for name in dict.fromkeys([*results, layout.metadata.name]) if name not in in_git]


def _out(path: Path, **flags: bool) -> dict[str, Any]:
    """Makes the entry of an out. It persists: DVC would else delete it first, and Snakemake would make all again."""
    entry = CommentedMap({**flags, "persist": True})
    entry.fa.set_flow_style()
    return {str(path): entry}


def write_stage(experiment: Experiment, path: str, overlay: str | None) -> str:
    """Adds an experiment's stage to dvc.yaml in the current folder, or updates it, so that DVC can version the results.

    Other stages and comments stay as they are. The file is created if it is missing, and not written if nothing
    changes.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        path: path of the experiment file from which it was loaded, for example `params.yaml`.
        overlay: path of a second YAML file whose values replace those of `path`. None: no overlay.

    Returns:
        The name of the stage, for example `digits`.

    Raises:
        UserError: if `path` or `overlay` lies outside the current folder, if dvc.yaml cannot be read, or if the stage
            of this name belongs to another experiment file or overlay.
    """
    files = [_inside(file) for file in (path, overlay) if file]
    name, yaml = stage_name(experiment), _yaml()
    before = FILE.read_text(encoding="utf-8") if FILE.is_file() else ""
    try:
        content = yaml.load(before) or CommentedMap()
        if content.get("stages") is None:
            content["stages"] = CommentedMap()
        stages = content["stages"]
        present = stages.get(name)
        command = "" if present is None else str(present["cmd"])
    except (YAMLError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{FILE}: is not a file of DVC stages that this command can add to") from error
    wanted = stage(experiment, files)
    if command and _experiment_files(command) != _experiment_files(wanted["cmd"]):
        raise UserError(
            f"{FILE}: stage {name} is another experiment's: {command}\n"
            f"Give this experiment another `name:`, or remove that stage first: dvc remove {name}"
        )
    if present is None:
        stages[name] = wanted
    else:
        present.update(wanted)
    text = StringIO()
    yaml.dump(content, text)
    if text.getvalue() != before:
        write_text(FILE, text.getvalue())
    return name


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10_000  # no line breaks within a value
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", ""))
    return yaml


def _inside(file: str) -> str:
    """Makes a path relative to the checkout, so that dvc.yaml is valid in every clone.

    Raises:
        UserError: if it lies outside.
    """
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        raise UserError(f"{file}: lies outside {Path.cwd().name}/: an experiment is versioned with its file") from None


def _experiment_files(command: str) -> list[str]:
    """Returns the experiment file and the overlay in a stage's command, as `experiment=FILE` and `overlay=FILE`."""
    return re.findall(r"\b(?:experiment|overlay)=\S+", command)
