"""The rows of outcomes and tables that are compared with one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from robust_distillation.columns import NO_TEACHER, STUDENT, TEACHER, TEACHER_ROW

if TYPE_CHECKING:
    import pandas as pd


class Comparison(NamedTuple):
    """One student network, trained with one teacher or with none, beside that teacher.

    The rows of a frame with the columns teacher and student fall into two groups: the students' (their teacher is
    `teacher`, or NO_TEACHER where the method needs none) and the teacher's own.

    Attributes:
        teacher: name of the teacher or of a group of teachers; NO_TEACHER if no method of the comparison has one.
        student: name of the student.
    """

    teacher: str
    student: str

    @property
    def label(self) -> str:
        """The heading of tables and figures."""
        return f"Student {self.student}, teacher {self.teacher}"

    @property
    def teachers(self) -> tuple[str, str]:
        """Values that the column teacher has in rows of the students."""
        return (self.teacher, NO_TEACHER)

    def students(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns the students' rows, in the order of the frame."""
        return frame[self._of_students(frame)]

    def teacher_rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns the teacher's own rows, in the order of the frame."""
        return frame[self._of_teacher(frame)]

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns the rows of teacher and students, in the order of the frame."""
        return frame[self._of_teacher(frame) | self._of_students(frame)]

    def own(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns the rows about this comparison as a whole, of a table with a row per comparison or more."""
        return frame[frame[TEACHER].eq(self.teacher) & frame[STUDENT].eq(self.student)]

    def _of_students(self, frame: pd.DataFrame) -> pd.Series:
        return frame[STUDENT].eq(self.student) & frame[TEACHER].isin(self.teachers)

    def _of_teacher(self, frame: pd.DataFrame) -> pd.Series:
        return frame[STUDENT].eq(TEACHER_ROW) & frame[TEACHER].eq(self.teacher)
