"""The rows that are compared with one another."""

from __future__ import annotations

import pandas as pd
import pytest

from robust_distillation.columns import MODEL, TEACHER_ROW
from robust_distillation.comparison import Comparison

ROWS = pd.DataFrame(
    [
        ("big", TEACHER_ROW, "trades"), ("huge", TEACHER_ROW, "sat"),
        ("none", "small", "sat"), ("big", "small", "rslad"), ("huge", "small", "rslad"),
        ("none", "other", "sat"), ("big", "other", "rslad"),
    ],
    columns=MODEL,
)  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "students", "teacher"),
    [
        (Comparison("big", "small"), [2, 3], [0]),
        (Comparison("huge", "small"), [2, 4], [1]),
        (Comparison("big", "other"), [5, 6], [0]),
        (Comparison("none", "small"), [2], []),
    ],
)
def test_students_learnt_from_this_teacher_or_from_none(comparison, students, teacher):
    assert list(comparison.students(ROWS).index) == students
    assert list(comparison.teacher_rows(ROWS).index) == teacher
    assert list(comparison.rows(ROWS).index) == sorted(teacher + students)
    assert list(comparison.own(ROWS)["teacher"]) == [comparison.teacher]


def test_label_names_both():
    assert Comparison("big", "small").label == "Student small, teacher big"
