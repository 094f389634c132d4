"""Specifies the contents of an experiment's tables and figures, and the order of their rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from robust_distillation import metrics
from robust_distillation.columns import (
    AUGMENTED,
    CHECKPOINT,
    METHOD,
    METRIC,
    NO_TEACHER,
    ON_SURROGATE,
    STUDENT,
    TEACHER,
    TEACHER_ROW,
    attack_of,
)
from robust_distillation.comparison import Comparison
from robust_distillation.reference import published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

METRIC_TITLES = {
    "clean": "Clean", "fgsm": "FGSM", "pgd10": "PGD-10", "pgd20": "PGD-20", "pgd_sat": "PGD_SAT",
    "pgd_trades": "PGD_TRADES", "cw": "CW", "mifgsm": "MI-FGSM", "apgd": "APGD-CE",
    "apgd_ce_t": "APGD-CE+T", "autoattack": "AutoAttack",
    "square": "Square",
}  # fmt: skip


@dataclass(frozen=True)
class TableSpec:
    """The contents and the order of an experiment's tables and figures, as its experiment file states them.

    It is made by `TableSpec(**experiment.matrix())`, where `experiment` is the parsed experiment file that
    `config.load("params.yaml")` returns. Lists are in the order of that file.

    Attributes:
        experiment: name of the experiment, such as `digits`.
        protocol: `controlled` (every method is trained with equal settings) or `official` (with those of its authors).
        threat: threat model of the main attacks, as text, such as `linf eps 0.03137`.
        comparisons: pairs of a teacher and a student network, such as `Comparison(teacher="wide", student="small")`.
            Distillation methods are compared within a pair: each pair has a table and one of each figure. A student
            that is only trained without a teacher has the teacher `none`.
        methods: names of the distillation methods, such as `["sat", "ard", "rslad"]`.
        checkpoints: checkpoints that are evaluated: `["best"]`, `["last"]` or both. Summaries show the first.
        metrics: `clean`, then the names of the attacks, the strongest last. Summaries show the last.
        further: metrics beside the accuracies, as METRIC.ATTACK, such as `worst_class.autoattack`.
        search: precision in which the main attacks search for adversarial images: `fp32` or `bf16`.
        selection: how the checkpoint `best` was chosen, as text for captions.
        extra: sentence on the extra training images, for captions; "" without them.
        augmented: sentence on the `transfer_augmented_` attacks, for captions; "" without them.
        published: short names of the published tables to compare with, the preferred first, such as
            `["rslad_cifar10_white_box"]`: values of `reference` in the package's file reference/published.csv.
        published_as: name of a teacher, student or method in this experiment to its name in the published tables, if
            the two differ, such as `{"wrn-34-10": "wrn34_10_trades"}`.
        tables: further tables, entry `tables` of the experiment file: name to a dict with `title` and the lists
            `teachers`, `students`, `methods`, `checkpoints` and `metrics` of the names that the table shows (None:
            all).
    """

    experiment: str
    protocol: str
    threat: str
    comparisons: list[Comparison]
    methods: list[str]
    checkpoints: list[str]
    metrics: list[str]
    further: list[str] = field(default_factory=list)
    search: str = "fp32"
    selection: str = "chosen on the validation split"
    extra: str = ""
    augmented: str = ""
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
    def columns(self) -> list[str]:
        """All metrics in the order of the tables' columns: the accuracies, then the further ones."""
        return [*self.metrics, *self.further]

    @property
    def first(self) -> str:
        """The checkpoint that summaries show: the first of `checkpoints`."""
        return self.checkpoints[0]

    def transferred(self, attacks: list[str]) -> TableSpec:
        """Returns a copy for the tables on another dataset: with other metrics, and with the first checkpoint only.

        Args:
            attacks: names of the attacks on the other dataset, the strongest last. The `metrics` of the copy are
                `clean` and these names.
        """
        return replace(self, metrics=["clean", *attacks], further=[], checkpoints=self.checkpoints[:1])

    def known(self, row: Any) -> list[published.Entry]:
        """Returns the published accuracies to print beside a row of a table.

        Args:
            row: object with the attributes `teacher`, `student`, `method`, `checkpoint` and `metric`, such as a row of
                tables/main.csv from `DataFrame.itertuples()`.

        Returns:
            The numbers of the published tables in `published`, in the order of that list. The first is the one to
            compare with. Each is a `reference.published.Entry`, with `value` (percent), `paper`, `table`, `mark`
            (reliability: `P`, `C`, `S` or `R`), `source` and `note`, among others. Empty if none is known.
        """
        names = [self.published_as.get(name, name) for name in (row.teacher, row.student, row.method)]
        return published.find_published(self.published, *names, row.checkpoint, row.metric)

    def at_headline(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Selects the rows that summaries show: students at the first of `checkpoints`, and all rows about teachers.

        Args:
            frame: any table with the columns `checkpoint` and `student` (`-` in a row about a teacher).

        Returns:
            The selected rows with all columns, in the order and with the index of `frame`.
        """
        return frame[frame[CHECKPOINT].eq(self.first) | frame[STUDENT].eq(TEACHER_ROW)]

    def ordered(self, table: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
        """Sorts a table by teacher, student, method, checkpoint and metric, with the rows about teachers first.

        Names have the order of this specification, with the teacher `none` first. Unknown names come last.

        Args:
            table: table with the columns `teacher`, `student` (`-` in a row about a teacher), `method`, `checkpoint`
                and `metric`. It is not changed.
            metrics: all metrics of the table in their order, such as `["clean", "pgd20", "autoattack"]`.

        Returns:
            A sorted copy with all columns and with a new index from 0.
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
    """Returns the title of a metric for column headings and axes, for example `PGD-20` for `pgd20`.

    Args:
        metric: `clean` or the name of an attack, such as `autoattack`. `transfer_pgd20` is pgd20 crafted on the
            surrogate, another network. It gives `transfer PGD-20`, `transfer_augmented_pgd20` gives `transfer augmented
            PGD-20`, and METRIC.ATTACK a title such as `Worst class, AutoAttack`. An unknown name is returned as it is.
    """
    kind, attack = metrics.split(metric)
    if kind:
        return f"{metrics.get(metric).title}, {metric_title(attack)}"
    if metric.startswith(ON_SURROGATE):
        return f"transfer {'augmented ' * metric.startswith(AUGMENTED)}{metric_title(attack_of(metric))}"
    return METRIC_TITLES.get(metric, metric)


def heading(metric: str) -> str:
    """Returns the title of a metric for the head of a column, with an arrow down where lower values are better.

    Args:
        metric: `clean`, the name of an attack, such as `autoattack`, or METRIC.ATTACK, such as
            `worst_class.autoattack`.
    """
    return metric_title(metric) + ("" if metrics.get(metric).higher_is_better else " ↓")


def number_of(metric: str) -> Callable[[float], str]:
    """Returns the function that formats a value of a metric: two decimals of a percentage, three of a fraction.

    Args:
        metric: `clean`, the name of an attack, such as `autoattack`, or METRIC.ATTACK, such as
            `worst_class.autoattack`.
    """
    return ("{:.2f}" if metrics.get(metric).unit == "percent" else "{:.3f}").format
