"""Makes the table of the tuning stage: all candidates, their accuracy on the validation split, and the choice.

A candidate is a combination of hyperparameter values of a method.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from robust_distillation.columns import MODEL
from robust_distillation.digests import canonical
from robust_distillation.files import write_text
from robust_distillation.reporting.formats import escaped

COLUMNS = [
    *MODEL, "candidate", "settings", "selection_clean", "selection_robust", "epoch", "chosen",
]  # fmt: skip
TITLES = {"selection_clean": "clean", "selection_robust": "under attack"}


def tidy(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Arranges the candidates of the tuning stage as a table.

    A candidate is a combination of hyperparameter values, with which a student is trained for a few epochs.

    Args:
        found: contents of the files such as results/digits/tuning/wide/small/rslad/candidates.json, one dict per
            teacher, student and method. Its keys:
            - `teacher`, `student`, `method`: names, such as `wide`, `small` and `rslad`.
            - `chosen`: name of the chosen candidate, such as `learning_rate=0.1`.
            - `candidates`: a list of dicts with `name`, `training` and `method` (training setting, or setting of the
              method, to value, such as `{"learning_rate": 0.1}`), `selection_clean` and `selection_robust` (accuracies
              in [0, 1]) and `epoch`. The last three are None if the training diverged.

    Returns:
        The content of tables/tuning.csv, one row per candidate. Columns: `teacher`, `student`, `method`, `candidate`
        (its name), `settings` (its values as JSON text, with the keys `training` and `method`), `selection_clean` and
        `selection_robust` (accuracy on clean and on attacked validation images in percent, at the best validation: the
        one with the highest robust accuracy, or with the highest value of the metric that `training.selection` names),
        `epoch` (of that validation) and `chosen` (bool). Accuracies and epoch are missing if the training diverged.
    """
    rows = [
        {
            **{key: method[key] for key in MODEL},
            "candidate": candidate["name"],
            "settings": canonical({key: candidate[key] for key in ("training", "method")}),
            **{key: _percent(candidate[key]) for key in TITLES},
            "epoch": candidate["epoch"],
            "chosen": candidate["name"] == method["chosen"],
        }
        for method in found
        for candidate in method["candidates"]
    ]
    return pd.DataFrame(rows)[COLUMNS].astype({"epoch": "Int64"})


def write_tables(found: list[dict[str, Any]], settings: dict[str, Any], folder: Path) -> None:
    """Writes the candidates of the tuning stage as FOLDER/tuning.csv, FOLDER/tuning.md and FOLDER/tuning.tex.

    A candidate is a combination of hyperparameter values, with which a student is trained for a few epochs. A row has
    its accuracies on the validation split and whether it was chosen.

    Args:
        found: contents of the files such as results/digits/tuning/wide/small/rslad/candidates.json, one dict per
            teacher, student and method, with the keys `teacher`, `student`, `method`, `chosen` (name of the chosen
            candidate) and `candidates`, a list of dicts with `name`, `training`, `method`, `selection_clean`,
            `selection_robust` and `epoch`, as `reporting.tuning.tidy` describes them.
        settings: texts and numbers of the caption, `experiment.tuning_settings()`: a dict with `experiment` (its name),
            `threat` (threat model as text, such as `linf eps 0.15`), `images` (number of validation images), `epochs`
            (of a candidate's training) and `by` (`training.selection.by`, such as `apgd`).
        folder: folder of the tables, such as results/digits/tables. It is created if it does not exist.
    """
    table = tidy(found)
    printed = _as_text(table)
    text = printed.to_markdown(index=False, disable_numparse=True, colalign=_alignment(printed))
    tex = (
        printed.map(escaped)
        .style.hide(axis="index")
        .to_latex(hrules=True, column_format="llllrrrl", caption=escaped(caption(settings)), position="t")
    )
    written = {"csv": table.to_csv(index=False), "md": f"{caption(settings)}\n\n{text}\n", "tex": tex}
    for kind, content in written.items():
        write_text(folder / f"tuning.{kind}", content)


def caption(settings: dict[str, Any]) -> str:
    """Returns the caption of the table of candidates as plain text, for its Markdown and LaTeX files.

    A candidate is a combination of hyperparameter values, with which a student is trained for a few epochs.

    Args:
        settings: `experiment.tuning_settings()`, a dict with `experiment` (its name), `threat` (threat model as text,
            such as `linf eps 0.15`), `images` (number of validation images), `epochs` (of a candidate's training) and
            `by` (`training.selection.by`, such as `apgd`).
    """
    return (
        f"{settings['experiment']}: the tuning stage. Highest accuracy in percent on {settings['images']} validation "
        f"images, {settings['threat']}, in one run of {settings['epochs']} epochs per candidate, and the epoch it was "
        f"found at. Chosen: the best by {settings['by']}, of equals the highest clean one."
    )


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    text = table.drop(columns="settings").rename(columns=TITLES)
    for title in TITLES.values():
        text[title] = ["diverged" if pd.isna(value) else f"{value:.2f}" for value in text[title]]
    text["epoch"] = ["" if pd.isna(epoch) else str(epoch) for epoch in text["epoch"]]
    text["chosen"] = ["chosen" if chosen else "" for chosen in text["chosen"]]
    return text


def _alignment(columns: pd.DataFrame) -> list[str]:
    numbers = (*TITLES.values(), "epoch")
    return ["right" if column in numbers else "left" for column in columns]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 4)  # single precision
