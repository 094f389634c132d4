"""Tables and figures from outcomes and curves; then, one job alone, MLflow."""

HEADLINES = [layout.headline(name) for name in experiment.teachers]
HEADLINES += sorted({layout.headline(run.teacher, run.student, run.method) for run in experiment.runs})
TRAINED_HERE = [layout.teacher(name) for name in experiment.teachers if name not in IMPORTED] + STUDENTS
FORMATS = ("csv", "md", "tex")
ANALYSES = [f"transfer-{target}" for target in experiment.file.transfer]
if experiment.file.structure:
    ANALYSES.append("structure")
if experiment.file.tuning:
    ANALYSES.append("tuning")


def pictures(*names):
    """The figures of each comparison, as PNG for the report, and as PDF."""
    panels = [layout.figures / teacher / student / name for teacher, student in experiment.pairs for name in names]
    png, pdf = ([panel.with_name(f"{panel.name}.{kind}") for panel in panels] for kind in ("png", "pdf"))
    return {"png": report(png, caption="../report/figure.rst", category="Figures"), "pdf": pdf}


def as_table(name):
    return {
        kind: report(path, caption="../report/table.rst", category="Tables") if kind == "csv" else path
        for kind in FORMATS
        for path in [layout.tables / f"{name}.{kind}"]
    }


rule tabulate:
    input:
        [layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
    output:
        **as_table("main"),
        named=[layout.tables / f"{name}.{kind}" for name in experiment.file.tables for kind in FORMATS],
        metrics=HEADLINES,
    log:
        log_of("tabulate"),
    params:
        settings=canonical(experiment.matrix()),
        published=sha256(published.FILE) if experiment.file.published else "",
        code=steps.table_code(),
    shell:
        "robust-distillation tabulate {experiment.arguments} > {log} 2>&1"


rule draw_figures:
    input:
        outcomes=[layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
        curves=[folder / "metrics.jsonl" for folder in STUDENTS],
    output:
        **pictures("training", "trade-off", "per-class"),
    log:
        log_of("draw-figures"),
    params:
        settings=canonical(experiment.matrix()),
        code=steps.figure_code(),
    shell:
        "robust-distillation draw-figures {experiment.arguments} > {log} 2>&1"


rule report_structure:
    input:
        [layout.structure(folder) for folder in TEACHERS + STUDENTS],
    output:
        **as_table("structure"),
        **pictures("correlations", "feature-distances"),
    log:
        log_of("report-structure"),
    params:
        settings=canonical(experiment.matrix()),
        code=steps.structure_report_code(),
    shell:
        "robust-distillation report-structure {experiment.arguments} > {log} 2>&1"


rule report_transfer:
    input:
        [layout.transferred("{target}", folder) for folder in TEACHERS + STUDENTS],
    output:
        **as_table("transfer-{target}"),
        **pictures("transfer-{target}"),
    log:
        log_of("report-transfer", "{target}"),
    params:
        settings=lambda w: canonical(experiment.matrix() | {"attacks": experiment.file.transfer[w.target].attacks}),
        code=steps.transfer_report_code(),
    shell:
        "robust-distillation report-transfer {wildcards.target} {experiment.arguments} > {log} 2>&1"


rule report_tuning:
    input:
        [layout.candidates(*names) / "candidates.json" for names in experiment.tuned],
    output:
        **as_table("tuning"),
        record=layout.record(layout.tables / "tuning.csv"),
    log:
        log_of("report-tuning"),
    params:
        settings=lambda w: canonical(experiment.tuning_settings()),
        code=steps.tuning_report_code(),
    shell:
        "robust-distillation report-tuning {experiment.arguments} > {log} 2>&1"


rule track:
    input:
        data=layout.data,
        outcomes=[layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
        curves=[folder / "metrics.jsonl" for folder in TRAINED_HERE],
        weights=[folder / f"{name}.safetensors" for folder in TRAINED_HERE for name in ("best", "last")]
        + [layout.teacher(name) / "imported.safetensors" for name in IMPORTED],
        records=[folder / "record.json" for folder in TEACHERS + STUDENTS],
        tables=rules.tabulate.output,
        figures=rules.draw_figures.output,
        analyses=[layout.tables / f"{name}.csv" for name in [*ANALYSES, "comparisons", "claims"]],
    output:
        layout.tracked,
    log:
        log_of("track"),
    params:
        code=steps.tracking_code(),
    shell:
        "robust-distillation track {experiment.arguments} > {log} 2>&1"
