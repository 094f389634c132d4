"""What came out, for people: one HTML file."""

from robust_distillation.reporting.report.sources import sources


rule report_html:
    input:
        sources(experiment),
    output:
        report=layout.report,
        record=layout.record(layout.report),
    log:
        log_of("report"),
    params:
        settings=canonical(experiment.matrix()),
        code=steps.report_code(),
    shell:
        "robust-distillation report {experiment.arguments} > {log} 2>&1"
