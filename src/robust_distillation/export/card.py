"""The model card: a README.md with a model's architecture, training, evaluation and use."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from robust_distillation import attacks, methods
from robust_distillation.columns import GROUP, METRIC, ON_SURROGATE
from robust_distillation.registry import Registry
from robust_distillation.statistics.accuracies import summary

TEMPLATE = "model_card.md.jinja"
# Attack that selects the checkpoint "best", by the setting `selection.by`.
SELECTIONS = {
    "apgd": "{steps} steps of APGD-CE",
    "pgd10": "IAD's PGD (10 steps of 2/255)",
    "pgd_trades": "PGD_TRADES (20 steps of 0.003)",
}


def accuracies(outcomes: pd.DataFrame) -> list[dict[str, Any]]:
    """Computes the accuracies of one checkpoint with 95 % intervals that account for testing on other images, as in the
    tables.

    Args:
        outcomes: the outcomes of one checkpoint of one trained network, one row per test image, with the columns
            `teacher`, `student`, `method`, `seed`, `checkpoint`, `index`, `label`, `prediction`, and one bool column
            per attack (True: classified correctly).

    Returns:
        One dict for each metric, `clean` first, with the keys `metric`, `images` (number of test images), `about` (text
        that describes the attack), and, in percent, `value`, `low` and `high`.
    """
    return [
        {
            "metric": row.metric, "images": row.n_images, "about": describe_attack(row.metric),
            "value": row.mean, "low": row.ci_low, "high": row.ci_high,
        }
        for row in summary(outcomes).itertuples()
    ]  # fmt: skip


def seed_statistics(table: Path, keys: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Reads the mean accuracies over seeds of one trained model from the main table.

    Args:
        table: path of tables/main.csv; it may be missing.
        keys: the values of `teacher`, `student`, `method` and `checkpoint` of the rows to select; other keys are
            ignored.

    Returns:
        For each metric, such as `clean`, a dict with `n_seeds` (number of seeds) and, in percent, `mean`, `ci_low` and
        `ci_high`. Metrics of a single seed, which have no interval over seeds, are left out. Empty if the table does
        not exist.
    """
    if not table.is_file():
        return {}
    rows = pd.read_csv(table)
    for key in GROUP:
        rows = rows[rows[key].astype(str).eq(keys[key])]
    rows = rows[rows["n_seeds"].gt(1)].set_index(METRIC)
    return rows[["n_seeds", "mean", "ci_low", "ci_high"]].to_dict("index")


def selection(metadata: dict[str, Any]) -> str:
    """Describes how a checkpoint was selected, as a phrase for the model card.

    Args:
        metadata: metadata of the checkpoint. `checkpoint` ("best", "last" or "imported") is used, and for "best" also
            `dataset.selects_on_test`, `training.selection` and `epoch`.

    Returns:
        A phrase that starts with a small letter and has no full stop, for example "the last epoch; nothing was chosen".
    """
    if metadata["checkpoint"] == "imported":
        return "as published; nothing was chosen here"
    if metadata["checkpoint"] == "last":
        return "the last epoch; nothing was chosen"
    split = "test" if metadata["dataset"]["selects_on_test"] else "validation"
    rule = metadata["training"]["selection"]
    attack = SELECTIONS[rule["by"]].format(**rule)
    return (
        f"the highest accuracy on the {split} split under {attack}, ties by clean accuracy: epoch {metadata['epoch']}"
    )


def describe_attack(name: str) -> str:
    """Describes an attack in one or two sentences, from the docstring of its module.

    Args:
        name: "clean", or the name of an attack such as "pgd20", or "transfer_pgd20" for an attack that is crafted on
            another network.

    Raises:
        UserError: there is no such attack.
    """
    if name == "clean":
        return "no attack"
    base = name.removeprefix(ON_SURROGATE)
    crafted = "" if base == name else " Crafted on another network, the surrogate."
    return f"{_summary(attacks.registry, base)}{crafted}"


def describe_method(name: str) -> str:
    """Describes a method by the first paragraph of the docstring of its module, on one line.

    Args:
        name: name of a registered method, for example "rslad".

    Raises:
        UserError: there is no such method.
    """
    return _summary(methods.registry, name)


def _summary(registry: Registry, name: str) -> str:
    """Returns the first paragraph of the docstring of an entry's module, on one line."""
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or name).split("\n\n")[0].split())


def render(**values: Any) -> str:
    """Renders the model card and returns it as Markdown text. Writes no file.

    Args:
        values: the variables of the template model_card.md.jinja, by name.

    Raises:
        jinja2.UndefinedError: a variable of the template is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robust_distillation", "export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown
    )
    return environment.get_template(TEMPLATE).render(**values)
