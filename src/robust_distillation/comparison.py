"""Selects the rows of outcomes and tables that are compared with one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from robust_distillation.columns import NO_TEACHER, STUDENT, TEACHER, TEACHER_ROW

if TYPE_CHECKING:
    import pandas as pd


class Comparison(NamedTuple):
    """Pair of a teacher and a student architecture, within which the distillation methods are compared.

    Its functions select the rows of a DataFrame whose columns `teacher` and `student` name this pair. The columns are
    as in the outcomes (one row per trained network, checkpoint and test image) and in
    results/EXPERIMENT/tables/main.csv (one row per mean accuracy):

    - A row about a student has the name of the student network in `student`. In `teacher` it has the name of the
      teacher, or `none` if the method needs no teacher.
    - A row about a teacher has `-` in `student` and the name of the teacher in `teacher`.

    `experiment.comparisons` lists the pairs of an experiment, where `experiment` is the parsed experiment file that
    `config.load` returns.

    Attributes:
        teacher: name of a teacher, such as `wide`, or of an entry under `teachers` that names several teachers, such as
            `pair: {roles: {robust: wide, natural: resnet}}`; `none` if the student is trained by methods without a
            teacher only.
        student: name of the student under `students` in the experiment file, such as `small`.
    """

    teacher: str
    student: str

    @property
    def label(self) -> str:
        """Heading of this pair in tables and figures, such as `Student small, teacher wide`."""
        return f"Student {self.student}, teacher {self.teacher}"

    @property
    def teachers(self) -> tuple[str, str]:
        """The two values of the column `teacher` in rows about the students: the teacher's name and `none`."""
        return (self.teacher, NO_TEACHER)

    def students(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Selects the rows about students of this architecture, distilled from this teacher or trained without one.

        Args:
            frame: table with the columns `teacher` and `student`, such as the outcomes or
                results/EXPERIMENT/tables/main.csv as `files.read_table` reads it.

        Returns:
            The rows whose `student` is this student and whose `teacher` is this teacher or `none`, with all columns, in
            the order and with the index of `frame`. Empty if there are none.
        """
        return frame[self._of_students(frame)]

    def teacher_rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Selects the rows about the teacher's own network.

        Args:
            frame: table with the columns `teacher` and `student`, such as the outcomes or
                results/EXPERIMENT/tables/main.csv as `files.read_table` reads it.

        Returns:
            The rows whose `student` is `-` and whose `teacher` is this teacher, with all columns, in the order and with
            the index of `frame`. Empty if there are none.
        """
        return frame[self._of_teacher(frame)]

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Selects the rows about the students and those about the teacher.

        Args:
            frame: table with the columns `teacher` and `student`, such as the outcomes or
                results/EXPERIMENT/tables/main.csv as `files.read_table` reads it.

        Returns:
            The rows whose `student` is this student and whose `teacher` is this teacher or `none`, and the rows whose
            `student` is `-` and whose `teacher` is this teacher. They have all columns, and the order and index of
            `frame`.
        """
        return frame[self._of_teacher(frame) | self._of_students(frame)]

    def own(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Selects the rows whose `teacher` and `student` are exactly the two names of this pair.

        This is for tables whose rows are about a pair of a teacher and a student, such as tables/comparisons.csv with
        one row for every two distillation methods. There a row about a method without a teacher has this teacher's
        name, too. In other tables use `students`, which also selects the rows whose `teacher` is `none`.

        Args:
            frame: table with the columns `teacher` and `student`.

        Returns:
            The selected rows with all columns, in the order and with the index of `frame`. Empty if there are none.
        """
        return frame[frame[TEACHER].eq(self.teacher) & frame[STUDENT].eq(self.student)]

    def _of_students(self, frame: pd.DataFrame) -> pd.Series:
        return frame[STUDENT].eq(self.student) & frame[TEACHER].isin(self.teachers)

    def _of_teacher(self, frame: pd.DataFrame) -> pd.Series:
        return frame[STUDENT].eq(TEACHER_ROW) & frame[TEACHER].eq(self.teacher)
