"""Methods against each other, and the claims: from outcomes, and from the analyses that some claim is about."""

from robust_distillation.config import claims_of, comparison_settings

CLAIMED = {claim.statement.analysis for claim in claims_of(experiment)}


rule compare:
    input:
        outcomes=[layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
        structure=[layout.structure(folder) for folder in TEACHERS + STUDENTS if "structure" in CLAIMED],
        transfer=[
            layout.transferred(target, folder)
            for target in experiment.file.transfer
            if f"transfer-{target}" in CLAIMED
            for folder in TEACHERS + STUDENTS
        ],
    output:
        comparisons=list(as_table("comparisons").values()),
        claims=list(as_table("claims").values()),
        record=layout.record(layout.tables / "comparisons.csv"),
    log:
        log_of("compare"),
    params:
        settings=canonical(comparison_settings(experiment)),
        published=sha256(published.FILE) if experiment.file.published else "",
        code=steps.compare_code(experiment),
    shell:
        "robust-distillation compare {experiment.arguments} > {log} 2>&1"
