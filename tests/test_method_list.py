"""docs/methods.md is what the command prints; what it says of calls is what a step does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy_methods import TOYS

from robust_distillation import methods
from robust_distillation.cli import main
from robust_distillation.planning import method_list

PAGE = Path(__file__).parents[1] / "docs/methods.md"
OWN = [name for name in methods.names() if methods.registry.module_name(name).startswith(methods.__name__ + ".")]


def test_the_page_is_what_the_command_prints():
    printed = CliRunner().invoke(main, ["methods"])
    assert printed.exit_code == 0, printed.output
    assert printed.output == PAGE.read_text(), "robust-distillation methods > docs/methods.md"


@pytest.mark.parametrize("name", OWN)
def test_every_method_says_what_it_minimises_and_from_which_paper(name):
    found = method_list.described(name)
    assert "minimises" in found.formula
    assert found.formula.count(". ") == 0
    assert name == "natural" or re.search(r"20[12]\d|arXiv", found.title), found.title
    assert bool(found.unknown) or "style" not in found.title


@pytest.mark.parametrize(
    ("name", "sees", "passes"),
    [
        ("sat", {}, (10 * 2 + 3, 0, 0)),
        ("trades", {}, (1 + 10 * 2 + 2 * 3, 0, 0)),
        ("rslad", {"teacher": ["x (stored)"]}, (10 * 2 + 2 * 3, 0, 0)),
        ("iad", {"teacher": ["x (stored)", "x'"]}, (10 * 2 + 2 * 3, 1, 0)),
        ("adaad", {"teacher": ["x' at each step of the attack, with its gradient", "x'"]}, (23, 10 * 2 + 1, 0)),
        ("mtard", {"robust": ["x'"], "natural": ["x (stored)"]}, (26, 1, 0)),
    ],
)
def test_what_is_counted(name, sees, passes):
    found = method_list.described(name)
    assert {role: found.sees[role] for role in sorted(found.sees)} == {role: sees[role] for role in sorted(sees)}
    assert (found.student, found.teachers, found.own) == passes


@pytest.mark.parametrize(
    ("toy", "sees", "passes"),
    [
        ("Peer", {}, (10 * 2 + 3, 0, 1 + 3)),
        ("TrainedTeacher", {"teacher": ["x (stored)", "x'"]}, (23, 0, 3)),
        ("Mirrored", {"teacher": ["x, with its gradient", "x'", "2x - x'"]}, (20 + 6, 2 + 1 + 1, 0)),
        ("JointSearch", {"teacher": ["x' at each step of the attack, with its gradient", "x'"]}, (4 + 3, 4 + 1, 0)),
    ],
)
def test_what_is_counted_of_toys(toy, sees, passes, monkeypatch):
    monkeypatch.setattr(methods, "get", lambda name: TOYS[name])
    found = method_list.described(toy)
    assert found.sees == sees
    assert (found.student, found.teachers, found.own) == passes


def test_points_of_a_docstring():
    text = "F.\n\nAttributes:\n    a: b.\n\nUnknown:\n    - one,\n      in two lines.\n    - Two.\n"
    assert method_list._points(text, "Unknown") == ("one, in two lines.", "Two.")
    assert method_list._points("F.\n\nAttributes:\n    a: b.\n", "Unknown") == ()
