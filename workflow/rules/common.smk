"""The experiment, and what happens before the first job and after the last."""

from snakemake.exceptions import WorkflowError

from robust_distillation.config import load
from robust_distillation.errors import UserError, unknown
from robust_distillation.files import find_temporary_files
from robust_distillation.pipeline import metadata
from robust_distillation.resume import remove_links

try:
    for key, value in config.items():
        if key not in ("experiment", "overlay"):
            raise UserError(f"--config: {unknown('key', key, ['experiment', 'overlay'])}")
        if not isinstance(value, str) or not value:
            raise UserError(f"--config: {key}={value} names no file")
    experiment = load(config.get("experiment", "params.yaml"), config.get("overlay"))
except UserError as error:
    raise WorkflowError(str(error)) from None

layout = experiment.layout
metadata.follow(layout)


# Before the first job of a real run (never of a dry run): are the data here, or may they be fetched?
onstart:
    shell("robust-distillation check {experiment.arguments}")
    metadata.forget(layout)
    for left in find_temporary_files(layout.root):  # by processes that were killed
        left.unlink(missing_ok=True)


onsuccess:
    metadata.keep(layout)
    remove_links(layout.states)


onerror:
    metadata.keep(layout)
    remove_links(layout.states)
