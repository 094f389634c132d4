"""The form of the docstrings in src: present, opened by a verb or a noun, every argument and field described."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "robust_distillation"
# Packages and modules whose docstrings do not have this form yet. Shorten the list, never extend it.
NOT_YET: list[str] = []
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
OPENINGS = re.compile(r"(what|who|whose|where|when|how|that|whether|of|as|if|in|the same|a same|it|its|they)\b", re.I)
VERB = re.compile(r"(?!This\b|These\b|Images\b)([A-Z][a-z-]+s|Context manager:|Does not) ?")
FREE = {"__init__", "__len__", "__iter__", "__enter__", "__exit__", "__repr__", "__str__", "__setstate__", "__hash__"}


def decorators(node: ast.AST) -> set[str]:
    """The last part of the name of each decorator, without its arguments."""
    bare = [item.func if isinstance(item, ast.Call) else item for item in getattr(node, "decorator_list", [])]
    return {ast.unparse(item).rpartition(".")[2] for item in bare}


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes of a module, methods included, by dotted name."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (not node.name.startswith("_") or node.name in FREE):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.")


def arguments(node: ast.FunctionDef) -> list[str]:
    """The names of all arguments but self and cls."""
    every = [*node.args.posonlyargs, *node.args.args, node.args.vararg, *node.args.kwonlyargs, node.args.kwarg]
    return [one.arg for one in every if one is not None and one.arg not in ("self", "cls") and one.arg.strip("_")]


def fields(node: ast.ClassDef) -> list[str]:
    """The fields of a dataclass or a named tuple."""
    if "dataclass" not in decorators(node) and not any(ast.unparse(base) == "NamedTuple" for base in node.bases):
        return []
    return [item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and item.target.id[0] != "_"]


def undescribed(docstring: str, section: str, names: list[str]) -> list[str]:
    """The names that have no line of their own in a section of a docstring."""
    _, _, rest = docstring.partition(f"{section}:\n")
    return [name for name in names if not re.search(rf"^\s+\*{{0,2}}{name}(, \w+)*: ", rest, re.M)]


def named(docstring: str, name: str) -> bool:
    """Returns True if a docstring describes an argument: by a line `name: ...`, or by its name in backticks."""
    return bool(re.search(rf"(^\s+(\w+, )*\*{{0,2}}{name}(, \w+)*: |`{name}[`.\[( ])", docstring, re.M))


def faults(tree: ast.Module) -> list[str]:
    """One line for each docstring of a module that is missing or has another form."""
    module = ast.get_docstring(tree) or ""
    problems = [] if module else ["the module has no docstring"]
    if OPENINGS.match(module):
        problems.append(f"the module's docstring opens with {module[:30]!r}")
    for name, node in definitions(tree.body):
        docstring = ast.get_docstring(node) or ""
        if not docstring:
            if node.name not in FREE or len(arguments(node)) > 2:
                problems.append(f"{name} has no docstring")
            continue
        if OPENINGS.match(docstring):
            problems.append(f"{name} opens with {docstring[:30]!r}")
        of_function = isinstance(node, ast.FunctionDef)
        marks = decorators(node)
        if (
            of_function
            and not marks & {"property", "cached_property", "command", "group"}
            and not VERB.match(docstring)
        ):
            problems.append(f"{name} opens with no verb: {docstring[:30]!r}")
        if of_function and not marks & {"command", "group"} and len(arguments(node)) > 2:
            missing = undescribed(docstring, "Args", arguments(node))
        else:
            missing = [] if of_function or len(fields(node)) < 3 else undescribed(docstring, "Attributes", fields(node))
        if of_function and not marks & {"command", "group"}:
            missing += [argument for argument in arguments(node) if not named(docstring, argument)]
        missing += [] if of_function else [field for field in fields(node) if not named(docstring, field)]
        problems += [f"{name} does not describe {argument}" for argument in dict.fromkeys(missing)]
    return problems


@pytest.mark.parametrize(
    "name", [name for name in MODULES if not any(f"{name}.".startswith(f"{one}.") for one in NOT_YET)]
)
def test_docstrings_have_the_form_of_the_house(name):
    assert not faults(ast.parse(MODULES[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = 1", "the module has no docstring"),
        ('"""What a thing is."""', "opens with 'What a thing is.'"),
        ('"""A module."""\ndef f(): pass', "f has no docstring"),
        ('"""A module."""\nclass C:\n    """A class."""\n    def f(self): pass', "C.f has no docstring"),
        ('"""A module."""\ndef f():\n    """Of all x: the first."""', "f opens with 'Of all x"),
        ('"""A module."""\ndef f():\n    """The sum."""', "f opens with no verb"),
        (
            '"""A module."""\ndef f(a, b, c):\n    """Sums.\n\n    Args:\n        a: one.\n        b: two.\n    """',
            "describe c",
        ),
        ('"""A module."""\ndef f(a):\n    """Sums all."""', "describe a"),
        ('"""A module."""\nclass C(NamedTuple):\n    """A class."""\n    a: int', "describe a"),
        ('"""A module."""\n@dataclass\nclass C:\n    """A class."""\n    a: int\n    b: int\n    c: int', "describe a"),
    ],
)
def test_each_fault_is_found(source, fault):
    assert any(fault in one for one in faults(ast.parse(source)))
