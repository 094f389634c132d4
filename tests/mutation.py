"""Changes one constant of a source file, for tests that ask what notices it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from robust_distillation.pipeline.fingerprint import LEVELS


def mutated(file: Path, numbers: bool = False) -> bytes:
    """Returns the content of a file with one constant changed: the last one, or with `numbers` the last number.

    A number is raised by one, a string gets an x at its end. A module without a constant gets one. Of a rule file the
    last number or, without one, the first string changes; of a data file the last letter or digit. Docstrings and the
    text of messages are left alone: they decide nothing.
    """
    if file.suffix == ".py":
        return _module(file.read_text(), numbers).encode()
    if file.suffix == ".smk" or file.name == "Snakefile":
        return _rules(file.read_text()).encode()
    content = bytearray(file.read_bytes())
    place = max(place for place, byte in enumerate(content) if chr(byte).isalnum())
    content[place] = ord("7") if content[place] != ord("7") else ord("8")
    return bytes(content)


def _module(text: str, numbers: bool) -> str:
    found = constants(text)
    if numbers:
        found = [node for node in found if not isinstance(node.value, str)] or found
    if not found:
        return f"{text}\nADDED = 1\n"
    node = max(found, key=lambda node: (node.lineno, node.col_offset))
    lines = text.splitlines(keepends=True)
    line = lines[node.lineno - 1].encode()
    new = repr(f"{node.value}x" if isinstance(node.value, str) else node.value + 1).encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + new + line[node.end_col_offset :]).decode()
    return "".join(lines)


def _rules(text: str) -> str:
    code = text.index('"""', text.index('"""') + 3) + 3  # after the docstring
    found = list(re.finditer(r"(?<![\w.])\d[\d_]*(?![\w\"'-])", text[code:]))
    if found:
        number = found[-1]
        return text[: code + number.start()] + str(int(number[0]) + 1) + text[code + number.end() :]
    string = re.search(r'"(\w+)"', text[code:])
    return text[: code + string.end() - 1] + "x" + text[code + string.end() - 1 :]


def constants(text: str) -> list[ast.Constant]:
    """Returns the numbers and words of a module that may decide something."""
    tree, apart = ast.parse(text), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr | ast.Raise | ast.JoinedStr | ast.Subscript) and not isinstance(
            getattr(node, "value", None), ast.Call
        ):
            apart |= {id(part) for part in ast.walk(node)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            apart |= {id(part) for part in ast.walk(node)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, int | float | str)
        and not isinstance(node.value, bool)
        and node.lineno == node.end_lineno
        and id(node) not in apart
    ]
