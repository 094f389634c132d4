"""Tables and figures from outcomes and curves; then, one job alone, MLflow; last the index of all that was made."""

TABULATE, DRAW, TRACK = links.tabulate(experiment), links.draw_figures(experiment), links.track(experiment)
INDEX = links.index(experiment)
REPORTED = {".csv": ("table", "Tables"), ".png": ("figure", "Figures")}  # in Snakemake's own report


def flagged(files):
    """Outputs, those for people named to Snakemake's own report."""
    return [_flagged(file) for file in files]


def _flagged(file):
    if file.suffix not in REPORTED:
        return file
    caption, category = REPORTED[file.suffix]
    return report(file, caption=f"../report/{caption}.rst", category=category)


rule tabulate:
    input:
        TABULATE.inputs,
    output:
        flagged(TABULATE.outputs),
        TABULATE.record,
    log:
        log_of("tabulate"),
    params:
        settings=canonical(TABULATE.settings),
        published=sha256(published.FILE) if experiment.file.published else "",
        code=TABULATE.code,
    shell:
        "robust-distillation tabulate {experiment.arguments} > {log} 2>&1"


rule draw_figures:
    input:
        DRAW.inputs,
    output:
        flagged(DRAW.outputs),
        DRAW.record,
    log:
        log_of("draw-figures"),
    params:
        settings=canonical(DRAW.settings),
        code=DRAW.code,
    shell:
        "robust-distillation draw-figures {experiment.arguments} > {log} 2>&1"


if experiment.file.structure:
    STRUCTURE = links.report_structure(experiment)

    rule report_structure:
        input:
            STRUCTURE.inputs,
        output:
            flagged(STRUCTURE.outputs),
            STRUCTURE.record,
        log:
            log_of("report-structure"),
        params:
            settings=canonical(STRUCTURE.settings),
            code=STRUCTURE.code,
        shell:
            "robust-distillation report-structure {experiment.arguments} > {log} 2>&1"


rule report_transfer:
    input:
        lambda w: links.report_transfer(experiment, w.target).inputs,
    output:
        flagged(links.as_table(layout, "transfer-{target}")),
        flagged(links.pictures(experiment, "transfer-{target}")),
        layout.record(layout.tables / "transfer-{target}.csv"),
    log:
        log_of("report-transfer", "{target}"),
    params:
        settings=lambda w: canonical(links.report_transfer(experiment, w.target).settings),
        code=steps.transfer_report_code(),
    shell:
        "robust-distillation report-transfer {wildcards.target} {experiment.arguments} > {log} 2>&1"


if experiment.file.tuning:
    TUNING = links.report_tuning(experiment)

    rule report_tuning:
        input:
            TUNING.inputs,
        output:
            flagged(TUNING.outputs),
            TUNING.record,
        log:
            log_of("report-tuning"),
        params:
            settings=canonical(TUNING.settings),
            code=TUNING.code,
        shell:
            "robust-distillation report-tuning {experiment.arguments} > {log} 2>&1"


rule track:
    input:
        TRACK.inputs,
    output:
        flagged(TRACK.outputs),
        TRACK.record,
    log:
        log_of("track"),
    localrule: True  # on a cluster: where MLflow's store is
    params:
        code=TRACK.code,
    shell:
        "robust-distillation track {experiment.arguments} > {log} 2>&1"


rule index:
    input:
        INDEX.inputs,
    output:
        INDEX.outputs,
    log:
        log_of("index"),
    params:
        code=INDEX.code,
    shell:
        "robust-distillation index {experiment.arguments} > {log} 2>&1"
