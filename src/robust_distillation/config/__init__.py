"""The experiment file: types, checks, and the runs that follow from it. Nothing else reads an experiment file.

`load("params.yaml")` returns an Experiment or raises one UserError that names every mistake.
"""

from robust_distillation.config.claims import Claim, Statement, claims_of, comparison_settings, parse_statement
from robust_distillation.config.experiment import (
    IMPORTED,
    Cache,
    Experiment,
    NamedMethod,
    Recipe,
    Run,
    Teacher,
    ViewSet,
)
from robust_distillation.config.reading import load
from robust_distillation.config.schema import Imported, Transfer

__all__ = [
    "IMPORTED",
    "Cache",
    "Claim",
    "Experiment",
    "Imported",
    "NamedMethod",
    "Recipe",
    "Run",
    "Statement",
    "Teacher",
    "Transfer",
    "ViewSet",
    "claims_of",
    "comparison_settings",
    "load",
    "parse_statement",
]
