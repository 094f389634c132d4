"""The experiment file as types, and the run matrix that follows from it. Nothing else reads a params file.

`load("params.yaml")` returns an Experiment or raises one UserError that names every mistake.
"""

from robust_distillation.config.experiment import NO_TEACHER, Experiment, NamedMethod, Run, Teacher
from robust_distillation.config.reading import load
from robust_distillation.config.schema import ThreatModel, Training

__all__ = ["NO_TEACHER", "Experiment", "NamedMethod", "Run", "Teacher", "ThreatModel", "Training", "load"]
