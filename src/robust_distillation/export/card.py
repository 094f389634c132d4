"""The model card: what a network is, how it was made, and what it was measured to do."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from scipy.stats import binomtest

from robust_distillation import attacks, methods
from robust_distillation.columns import ON_SURROGATE
from robust_distillation.evaluation.outcomes import attack_columns
from robust_distillation.registry import Registry

TEMPLATE = "model_card.md.jinja"
KEYS = ["teacher", "student", "method", "checkpoint", "metric"]
SELECTIONS = {
    "apgd": "{steps} steps of APGD-CE",
    "pgd10": "IAD's PGD (10 steps of 2/255)",
    "pgd_trades": "PGD_TRADES (20 steps of 0.003)",
}


def measured(outcomes: pd.DataFrame) -> list[dict[str, Any]]:
    """Of one checkpoint: metric, images, accuracy in percent, and its 95 % interval over test images (Wilson)."""
    held = {"clean": outcomes["prediction"].eq(outcomes["label"])}
    held |= {name: outcomes[name] for name in attack_columns(outcomes)}
    rows = []
    for metric, values in held.items():
        interval = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        percent = {"value": 100 * values.mean(), "low": 100 * interval.low, "high": 100 * interval.high}
        rows.append({"metric": metric, "images": len(values), "about": about_attack(metric), **percent})
    return rows


def over_seeds(table: Path, keys: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By metric, the rows of tables/main.csv about this model's method: n_seeds, mean, ci_low, ci_high (percent).

    Empty where the table is not there, and for a single seed, which has no interval."""
    if not table.is_file():
        return {}
    rows = pd.read_csv(table)
    for key in KEYS[:-1]:
        rows = rows[rows[key].astype(str).eq(keys[key])]
    # What needs no teacher stands in every teacher's table, each time with the same numbers.
    rows = rows.drop_duplicates("metric").set_index("metric")
    rows = rows[rows["n_seeds"].gt(1)]
    return rows[["n_seeds", "mean", "ci_low", "ci_high"]].to_dict("index")


def selection(metadata: dict[str, Any]) -> str:
    """How the checkpoint was chosen."""
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


def about_attack(name: str) -> str:
    if name == "clean":
        return "no attack"
    base = name.removeprefix(ON_SURROGATE)
    crafted = "" if base == name else " Crafted on another network, the surrogate."
    return f"{_summary(attacks.registry, base)}{crafted}"


def about_method(name: str) -> str:
    return _summary(methods.registry, name)


def _summary(registry: Registry, name: str) -> str:
    """The first paragraph of a file's docstring, on one line."""
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(source)) or name).split("\n\n")[0].split())


def render(**values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robust_distillation", "export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown
    )
    return environment.get_template(TEMPLATE).render(**values)
