"""Makes the report, one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import write_text
from robust_distillation.reporting.report.page import page

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Report


def run(step: Report) -> None:
    """Writes report.html, the results of the experiment on one page.

    Args:
        step: the job.
    """
    write_text(step.outputs[0], page(step.experiment))
