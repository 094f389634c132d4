"""What came out, for people: one HTML file."""

REPORT = links.report(experiment)


rule report_html:
    input:
        REPORT.inputs,
    output:
        REPORT.outputs,
        REPORT.record,
    log:
        log_of("report"),
    params:
        settings=canonical(REPORT.settings),
        code=REPORT.code,
    shell:
        "robust-distillation report {experiment.arguments} > {log} 2>&1"
