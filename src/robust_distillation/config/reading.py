"""Reads an experiment file and its overlay, and reports every mistake in them.

torch is not imported, and nothing is written.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from robust_distillation.config.experiment import Experiment
from robust_distillation.config.parsing import deep_merge
from robust_distillation.config.resolving import resolve
from robust_distillation.errors import UserError, short_repr

LARGEST_FILE = 200_000  # bytes: a hundred times the largest experiment file of this project
MOST_PROBLEMS = 10  # in one message


def load(path: str | Path, overlay: str | Path | None = None) -> Experiment:
    """Reads an experiment, checks it and fills in all defaults.

    Args:
        path: path of the experiment file (YAML), such as `params.yaml`.
        overlay: path of a second YAML file, whose values replace those of the first: mappings are merged key by key,
            lists are replaced, null removes a key. None: no overlay.

    Returns:
        The experiment with all defaults filled in. Among its fields are `teachers`, `students`, `methods` and `runs`
        (all trainings of students); `layout` gives the paths of all results.

    Raises:
        UserError: if a file cannot be read or contains mistakes. The message lists up to ten mistakes, each with its
            place in the file and what is allowed.
    """
    raw = _read_yaml(path)
    arguments, source = f"--experiment {shlex.quote(str(path))}", str(path)
    if overlay is not None:
        raw = deep_merge(raw, _read_yaml(overlay))
        arguments, source = f"{arguments} --overlay {shlex.quote(str(overlay))}", f"{path} with {overlay}"
    problems: list[str] = []
    experiment = resolve(raw, arguments, problems)
    if problems:
        lines = [f"{source}: {problem}" for problem in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            lines.append(f"{source}: and {len(problems) - MOST_PROBLEMS} more")
        raise UserError("\n".join(lines))
    return experiment


def _read_yaml(path: str | Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.events import AliasEvent

    try:
        if Path(path).stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: too large for an experiment file (more than {LARGEST_FILE} bytes)")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"experiment file {path}: cannot be read ({reason})") from error
    try:
        yaml = YAML(typ="safe", pure=True)
        for event in yaml.parse(text):
            if isinstance(event, AliasEvent):  # a few nested aliases can expand to more than fits into memory
                line = event.start_mark.line + 1
                raise UserError(f"{path}: line {line}: aliases (*{event.anchor}) are not allowed: write the value out")
        value = yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        problem = error.problem.split(" with value")[0].replace("found duplicate", "duplicate")
        raise UserError(f"{path}: line {line}: {problem}. Give each name once") from error
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: {where}not valid YAML ({problem or 'a character that is not allowed'})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # ruamel raises these for tagged values, keys that are no names and numbers with too many digits.
        reason = str(error).partition("\n")[0]
        reason = "a number beyond reason" if "digits" in reason else short_repr(reason)
        raise UserError(f"{path}: not valid YAML (a value in it cannot be read: {reason})") from error
    if value is None:
        raise UserError(f"{path}: is empty: an experiment file is a mapping of settings")
    if not isinstance(value, dict):
        raise UserError(f"{path}: an experiment file is a mapping of settings, found {short_repr(value)}")
    return value
