"""The experiment, its layout, and what all rules share."""

import re

from snakemake.exceptions import WorkflowError

from robust_distillation.config import Run, load
from robust_distillation.errors import UserError, unknown
from robust_distillation.digests import canonical
from robust_distillation.files import half_written, sha256
from robust_distillation.layout import Layout
from robust_distillation.pipeline import links, metadata, steps
from robust_distillation.reference import published
from robust_distillation.resume import forget_made

try:
    for key, value in config.items():
        if key not in ("experiment", "overlay"):
            raise UserError(f"--config: {unknown('key', key, ['experiment', 'overlay'])}")
        if not isinstance(value, str) or not value:
            raise UserError(f"--config: {key}={value} names no file")
    experiment = load(config.get("experiment", "params.yaml"), config.get("overlay"))
except UserError as error:
    raise WorkflowError(str(error)) from None

layout = Layout(experiment.name)
metadata.follow(layout)
TEACHER = layout.teacher("{teacher}")
STUDENT = layout.student("{teacher}", "{student}", "{method}", "{seed}")


TRAINED = layout.root / "{trained}"  # the folder of a model: teachers/TEACHER or students/TEACHER/STUDENT/METHOD/seed-N
IMPORTED = [name for name, teacher in experiment.teachers.items() if teacher.imported]
TEACHERS = [layout.teacher(name) for name in experiment.teachers]
STUDENTS = [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]


wildcard_constraints:
    trained="(teachers/[^/]+|students/[^/]+/[^/]+/[^/]+/seed-[0-9]+)",
    target="[^/]+",
    teacher="[^/]+",
    student="[^/]+",
    method="[^/]+",
    seed=r"\d+",
    kind="logits|features",
    shard=r"\d+-of-\d+",


# Before the first job of a real run (never of a dry run): are the data here, or may they be fetched?
onstart:
    shell("robust-distillation check {experiment.arguments}")
    metadata.forget(layout)
    for left in half_written(layout.root):  # by processes that were killed
        left.unlink(missing_ok=True)


onsuccess:
    metadata.keep(layout)
    forget_made(layout.states)


onerror:
    metadata.keep(layout)
    forget_made(layout.states)


def run_of(wildcards):
    return Run(wildcards.teacher, wildcards.student, wildcards.method, int(wildcards.seed))


def teacher_weights(teacher):
    """The checkpoint of a teacher that students learn from."""
    return layout.teacher(teacher) / f"{experiment.teachers[teacher].checkpoint}.safetensors"


def model_of(wildcards):
    """The name of the model {trained} on the command line."""
    return wildcards.trained.partition("/")[2]


def looked_at(wildcards):
    """Architecture and checkpoints, the headline's first, of the model {trained}."""
    kind, *names = wildcards.trained.split("/")
    folder = layout.root / wildcards.trained
    if kind == "teachers":
        teacher = experiment.teachers[names[0]]
        return teacher.architecture, [folder / f"{teacher.checkpoint}.safetensors"]
    checkpoints = [folder / f"{name}.safetensors" for name in experiment.evaluation.checkpoints]
    return experiment.students[names[1]], checkpoints


def one_of(names):
    """A wildcard constraint: these names and no other."""
    return "|".join(map(re.escape, names)) or "(?!)"


def log_of(*parts):
    return str(layout.root.joinpath("logs", *parts)) + ".log"
