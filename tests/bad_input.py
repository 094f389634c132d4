"""Read the cases of tests/bad_input/*.yaml: params.yaml with one thing broken, and what the message must say.

A file is a group of cases; `bases` names edits that several of its cases begin with. A case is a mapping of

    base      one of the bases of the file
    put       path to the value in its place; a path is dotted (training.epochs), or a list where a key has a dot
    drop      paths that are taken away
    rename    path to the new name of its last key
    plant     path to YAML text in its place: what no dump would write
    text      the whole file in place of params.yaml; null: there is no file
    encoding  of the file, when not UTF-8
    directory true: a directory in place of the file
    overlay   the text of an overlay; null: it is named but not there
    says      what the message must contain; of a list within, at least one
    lines     how many lines the message may have (1)
    seconds   how long it may take (60)

Text under the tag !made is a Jinja template: `params` is the valid file, `laughs` and `merged_laughs` are bombs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import jinja2
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).with_suffix("")
WHOLE = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
VALID = WHOLE[: WHOLE.index("\nclaims:")]  # without what would name every other mistake once more
EDITS = ("put", "drop", "rename", "plant", "text", "encoding", "directory")
CASE = ("base", *EDITS, "overlay", "says", "lines", "seconds")


def parsed(text: str = VALID) -> dict:
    return YAML(typ="safe", pure=True).load(text)


def dumped(raw: Any) -> str:
    out = StringIO()
    YAML(typ="safe", pure=True).dump(raw, out)
    return out.getvalue()


def laughs(levels: int = 9) -> str:
    """A list of 9 ** (levels + 1) zeros in half a kilobyte of aliases, if anything walks through it."""
    text = "&a0 [0, 0, 0, 0, 0, 0, 0, 0, 0]"
    for level in range(1, levels + 1):
        text = f"&a{level} [{text}, {', '.join([f'*a{level - 1}'] * 8)}]"
    return text


def merged_laughs(levels: int = 9) -> str:
    """The same of mappings that are merged."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels + 1):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}")
    return "\n".join(lines) + "\n"


class Constructor(SafeConstructor):
    def made(self, node: Any) -> str:
        template = jinja2.Template(node.value, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        return template.render(params=VALID, laughs=laughs(), merged_laughs=merged_laughs())


Constructor.add_constructor("!made", Constructor.made)


@dataclass(frozen=True)
class Case:
    """A broken file, and what is expected of the message."""

    edits: tuple[dict, ...]  # those of the base first
    says: tuple[str | list[str], ...]
    overlay: tuple[str | None, ...] = ()  # empty: no overlay is named
    lines: int = 1
    seconds: float = 60

    def write(self, file: Path, overlay: Path) -> None:
        write_params(file, *self.edits)
        for text in self.overlay:
            write_text(overlay, text)


def write_text(file: Path, text: str | None, encoding: str = "utf-8") -> None:
    if text is not None:
        file.write_bytes(text.encode(encoding))


def write_params(file: Path, *edits: dict) -> None:
    """Writes the valid params with the edits made to them, one after the other."""
    whole = {key: value for edit in edits for key, value in edit.items() if key in EDITS[4:]}
    if "directory" in whole:
        file.mkdir()
    elif "text" in whole:
        write_text(file, whole["text"], whole.get("encoding", "utf-8"))
    else:
        raw, planted = parsed(), {}
        for edit in edits:
            apply(edit, raw, planted)
        text = dumped(raw)
        for placeholder, yaml in planted.items():
            text = text.replace(placeholder, yaml)
        write_text(file, text)


def apply(edit: dict, raw: dict, planted: dict[str, str]) -> None:
    """Makes the edit to `raw`, and leaves in `planted` the YAML text of each placeholder."""
    for path, value in edit.get("put", {}).items():
        holder, key = place(raw, path)
        holder[key] = copy.deepcopy(value)  # later edits may reach into it
    for path in edit.get("drop", []):
        holder, key = place(raw, path)
        del holder[key]
    for path, name in edit.get("rename", {}).items():
        holder, key = place(raw, path)
        holder[name] = holder.pop(key)
    for path, yaml in edit.get("plant", {}).items():
        holder, key = place(raw, path)
        holder[key] = f"PLANT-{len(planted)}-HERE"
        planted[holder[key]] = yaml


def place(raw: dict, path: Any) -> tuple[Any, Any]:
    """The mapping that has the last key of the path, and that key."""
    *parts, key = path.split(".") if isinstance(path, str) else path
    for part in parts:
        raw = raw[part]
    return raw, key


def read_cases() -> dict[str, Case]:
    """Every case by its id, GROUP-NAME. Raises ValueError where a case has an unknown key or expects nothing."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        reader = YAML(typ="safe", pure=True)
        reader.Constructor = Constructor
        group = reader.load(file)
        for name, case in group["cases"].items():
            if not case.keys() <= set(CASE) or not case.get("says"):
                raise ValueError(f"{file.name}: {name}: unknown key, or says nothing: {', '.join(case)}")
            base = [group["bases"][case["base"]]] if "base" in case else []
            edits = (*base, {key: case[key] for key in EDITS if key in case})
            overlay = (case["overlay"],) if "overlay" in case else ()
            limits = {key: case[key] for key in ("lines", "seconds") if key in case}
            found[f"{file.stem}-{name}"] = Case(edits, tuple(case["says"]), overlay, **limits)
    return found
