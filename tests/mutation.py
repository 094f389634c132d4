"""Changes one constant of a source file, for tests that ask what notices it."""

from __future__ import annotations

import ast
from pathlib import Path

from robust_distillation.pipeline.fingerprint import LEVELS


def mutated(file: Path) -> bytes:
    """Returns the content of a file with its last constant changed.

    A number is raised by one, a string gets an x at its end. A module without a constant gets one, and of a data file
    the last letter or digit changes. Docstrings and the text of messages are left alone: they decide nothing.
    """
    if file.suffix != ".py":
        content = bytearray(file.read_bytes())
        place = max(place for place, byte in enumerate(content) if chr(byte).isalnum())
        content[place] = ord("7") if content[place] != ord("7") else ord("8")
        return bytes(content)
    text = file.read_text()
    found = constants(text)
    if not found:
        return f"{text}\nADDED = 1\n".encode()
    node = max(found, key=lambda node: (node.lineno, node.col_offset))
    lines = text.splitlines(keepends=True)
    line = lines[node.lineno - 1].encode()
    new = repr(node.value + 1 if isinstance(node.value, int | float) else f"{node.value}x").encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + new + line[node.end_col_offset :]).decode()
    return "".join(lines).encode()


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
