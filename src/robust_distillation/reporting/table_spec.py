"""The contents of an experiment's tables and figures, and the order of their rows."""

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
        threat: threat model of the main attacks, as text.
        comparisons: one table and one of each figure per comparison.
        methods: names of the methods.
        checkpoints: `best`, `last` or both; the first is the headline's.
        metrics: `clean`, then the attacks; the last is the headline's.
        search: precision in which the main attacks search for x': `fp32` or `bf16`.
        selection: rule by which the checkpoint `best` was chosen, as text.
        published: references of `published`, the preferred first.
        published_as: our names of teachers, students and methods to the references' names.
        tables: settings of the named tables, by name.
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
        """The threat model of the main attacks and the precision of their search, as text."""
        return self.threat + (", attacks searched in bfloat16" if self.search == "bf16" else "")

    @property
    def strongest(self) -> str:
        """The headline's metric: accuracy under the strongest attack."""
        return self.metrics[-1]

    @property
    def first(self) -> str:
        """The headline's checkpoint."""
        return self.checkpoints[0]

    def transferred(self, attacks: list[str]) -> TableSpec:
        """Returns the specification for another task, to which only the headline's checkpoint is transferred."""
        return replace(self, metrics=["clean", *attacks], checkpoints=self.checkpoints[:1])

    def known(self, row: Any) -> list[published.Entry]:
        """Returns the published numbers for a row of main.csv, the one to compare with first."""
        names = [self.published_as.get(name, name) for name in (row.teacher, row.student, row.method)]
        return published.find_published(self.published, *names, row.checkpoint, row.metric)

    def at_headline(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns the students' rows at the headline's checkpoint and the teachers' at the one they teach from."""
        return frame[frame[CHECKPOINT].eq(self.first) | frame[STUDENT].eq(TEACHER_ROW)]

    def ordered(self, table: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
        """Sorts a table over the seeds: the teachers' own rows first, then by CELL in the experiment's order.

        Args:
            table: columns CELL and others.
            metrics: all metrics of the table in their order.
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
    """Returns a metric's column heading; a metric without one keeps its name."""
    if metric.startswith("transfer_"):
        return f"transfer {metric_title(metric.removeprefix('transfer_'))}"
    return METRIC_TITLES.get(metric, metric)
