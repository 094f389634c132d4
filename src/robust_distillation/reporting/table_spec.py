"""Specifies the contents of an experiment's tables and figures, and the order of their rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, NO_TEACHER, STUDENT, TEACHER, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.reference import published

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

METRIC_TITLES = {
    "clean": "Clean", "fgsm": "FGSM", "pgd10": "PGD-10", "pgd20": "PGD-20", "pgd_sat": "PGD_SAT",
    "pgd_trades": "PGD_TRADES", "cw": "CW", "apgd": "APGD-CE", "autoattack": "AutoAttack", "square": "Square",
}  # fmt: skip


@dataclass(frozen=True)
class TableSpec:
    """The comparisons of an experiment, and all methods, checkpoints and metrics in the order of its file.

    Attributes:
        experiment: name of the experiment.
        protocol: `controlled` or `official`.
        threat: threat model of the main attacks, as text, for example `linf eps 0.03137`.
        comparisons: pairs of a teacher and a student. Each has a table and one of each figure, in which the methods are
            compared.
        methods: names of the methods.
        checkpoints: `best`, `last` or both. Summaries show the first.
        metrics: `clean`, then the names of the attacks. Summaries show the last.
        search: precision in which the main attacks search for adversarial images: `fp32` or `bf16`.
        selection: rule by which the checkpoint `best` was chosen, as text.
        published: names of the published tables to compare with, the preferred first.
        published_as: our name of a teacher, student or method to the name in the published tables, where they differ.
        tables: settings of the tables under `tables` in the experiment file, by name: `title`, and the lists
            `teachers`, `students`, `methods`, `checkpoints` and `metrics` that the table shows (None: all).
    """

    experiment: str
    protocol: str
    threat: str
    comparisons: list[Comparison]
    methods: list[str]
    checkpoints: list[str]
    metrics: list[str]
    search: str = "fp32"
    selection: str = "chosen on the validation split"
    published: list[str] = field(default_factory=list)
    published_as: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def attacked(self) -> str:
        """The threat model of the main attacks, with a note if they searched in bfloat16: for a caption."""
        return self.threat + (", attacks searched in bfloat16" if self.search == "bf16" else "")

    @property
    def strongest(self) -> str:
        """The metric that summaries show: the last of `metrics`, which is the strongest attack."""
        return self.metrics[-1]

    @property
    def first(self) -> str:
        """The checkpoint that summaries show: the first of `checkpoints`."""
        return self.checkpoints[0]

    def transferred(self, attacks: list[str]) -> TableSpec:
        """Returns the specification of tables on another dataset: other attacks, and the first checkpoint only.

        Args:
            attacks: names of the attacks on the other dataset. `metrics` becomes `clean` and these.
        """
        return replace(self, metrics=["clean", *attacks], checkpoints=self.checkpoints[:1])

    def known(self, row: Any) -> list[published.Entry]:
        """Returns the published numbers for a row of a table, the one to compare with first.

        Args:
            row: object with the attributes `teacher`, `student`, `method`, `checkpoint` and `metric`, such as a row of
                main.csv from `itertuples`.

        Returns:
            The numbers of the tables in `published`; empty if none is known.
        """
        names = [self.published_as.get(name, name) for name in (row.teacher, row.student, row.method)]
        return published.find_published(self.published, *names, row.checkpoint, row.metric)

    def at_headline(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Selects the rows that summaries show: the students' at the first checkpoint, and all rows of teachers.

        Args:
            frame: table with the columns `checkpoint` and `student` (`-` for a teacher's own row).
        """
        return frame[frame[CHECKPOINT].eq(self.first) | frame[STUDENT].eq(TEACHER_ROW)]

    def ordered(self, table: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
        """Returns a table sorted by teacher, student, method, checkpoint and metric, after the teachers' own rows.

        Names are in the order of this specification. Unknown ones come last.

        Args:
            table: table with the columns `teacher`, `student` (`-` for a teacher's own row), `method`, `checkpoint` and
                `metric`. It is not changed.
            metrics: all metrics of the table in their order.

        Returns:
            The table with all its columns, the teachers' own rows first, and with a new index from 0.
        """
        order = {
            "own": [False, True],
            TEACHER: [NO_TEACHER, *dict.fromkeys(comparison.teacher for comparison in self.comparisons)],
            STUDENT: [TEACHER_ROW, *dict.fromkeys(comparison.student for comparison in self.comparisons)],
            METHOD: self.methods,
            CHECKPOINT: self.checkpoints,
            METRIC: metrics,
        }
        ranks = {key: {name: rank for rank, name in enumerate(names)} for key, names in order.items()}
        ranked = table.assign(own=table[STUDENT] != TEACHER_ROW).sort_values(
            list(order), key=lambda column: column.map(ranks[column.name]), kind="stable", ignore_index=True
        )
        return ranked.drop(columns="own")


def metric_title(metric: str) -> str:
    """Returns the column heading of a metric, for example `PGD-20` for `pgd20`.

    Args:
        metric: `clean` or the name of an attack. After `transfer_` (an attack crafted on another network), the heading
            is `transfer` and that of the attack. A name without a heading is returned as it is.
    """
    if metric.startswith("transfer_"):
        return f"transfer {metric_title(metric.removeprefix('transfer_'))}"
    return METRIC_TITLES.get(metric, metric)
