"""Methods against each other, and the claims: from outcomes, and from the analyses that some claim is about."""

COMPARE = links.compare(experiment)


rule compare:
    input:
        COMPARE.inputs,
    output:
        flagged(COMPARE.outputs),
        COMPARE.record,
    log:
        log_of("compare"),
    params:
        settings=canonical(COMPARE.settings),
        published=sha256(published.FILE) if experiment.file.published else "",
        code=COMPARE.code,
    shell:
        "robust-distillation compare {experiment.arguments} > {log} 2>&1"
