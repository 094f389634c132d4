"""The DVC stage of an experiment: Snakemake decides what has to run, DVC versions what came out."""

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
    """DVC takes no dot in it."""
    return experiment.name.replace(".", "_")


def stage(experiment: Experiment, files: list[str]) -> dict[str, Any]:
    """files: the experiment file and, if any, its overlay, relative to the checkout."""
    chosen = [f"{key}={file}" for key, file in zip(("experiment", "overlay"), files, strict=False)]
    layout = experiment.layout
    return {
        # src first: a run in a folder of its own (dvc exp run --temp) uses the code that lies there.
        "cmd": f"PYTHONPATH=src:$PYTHONPATH snakemake --config {shlex.join(chosen)}",
        "deps": ["Snakefile", "workflow", "src"],
        "params": [{file: None} for file in files],
        "outs": [_out(path) for path in _artefacts(experiment, layout)] + [_out(layout.tables, cache=False)],
        "metrics": [_out(layout.metrics, cache=False)],
    }


def _artefacts(experiment: Experiment, layout: Layout) -> list[Path]:
    """All that it makes but tables and metrics, which git keeps, the cache, which can be filled again, and logs."""
    made = [file.relative_to(layout.root).parts[0] for file in (*Index(experiment).inputs, layout.index)]
    kept = (layout.tables.name, layout.metrics.name)
    return [layout.root / name for name in dict.fromkeys([*made, layout.metadata.name]) if name not in kept]


def _out(path: Path, **flags: bool) -> dict[str, Any]:
    """All outs persist, or DVC would delete them first and Snakemake would make everything again."""
    written = CommentedMap({**flags, "persist": True})
    written.fa.set_flow_style()
    return {str(path): written}


def write_stage(experiment: Experiment, path: str, overlay: str | None) -> str:
    """Adds or updates the experiment's stage in dvc.yaml, and returns its name. Raises UserError."""
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
    if command and _chosen(command) != _chosen(wanted["cmd"]):
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
    yaml.width = 10_000  # a line of its own for each value
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", ""))
    return yaml


def _inside(file: str) -> str:
    """The path relative to the checkout: dvc.yaml must hold in every clone."""
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        raise UserError(f"{file}: lies outside {Path.cwd().name}/: an experiment is versioned with its file") from None


def _chosen(command: str) -> list[str]:
    """The files that a stage's command runs."""
    return re.findall(r"\b(?:experiment|overlay)=\S+", command)
