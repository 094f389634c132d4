"""Makes the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import write_text
from robust_distillation.reporting.report.page import page

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Report


def run(step: Report) -> None:
    """Writes the page."""
    write_text(step.outputs[0], page(step.experiment))
