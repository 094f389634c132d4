"""Makes the report, one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import write_text
from robust_distillation.reporting.report.page import page

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Report


def run(step: Report) -> None:
    """Writes results/EXPERIMENT/report.html, one page with all results of the experiment, which needs no network.

    Reads data.json, outcomes, tables, training curves, analyses, and the records of all jobs. A record is the JSON file
    beside an output: its inputs, settings, code hash and hashes of the outputs.

    Args:
        step: the job (one run of this step), `pipeline.steps.Report(experiment)`. Used are its `experiment` and
            `outputs` (the path of the page).

    Raises:
        UserError: if an input file is missing, if a JSON file or an outcome file is damaged, or if the seeds of a
            method, or a student and its teacher, were not attacked on the same images.
    """
    write_text(step.outputs[0], page(step.experiment))
