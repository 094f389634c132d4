"""Tables and figures from outcomes and curves; then, one job alone, MLflow."""

TEACHERS = [layout.teacher(name) for name in experiment.teachers]
STUDENTS = [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]
HEADLINES = [layout.headline(name) for name in experiment.teachers]
HEADLINES += sorted({layout.headline(run.teacher, run.student, run.method) for run in experiment.runs})
PANELS = [
    layout.figures / teacher / student / name
    for teacher, student in experiment.pairs
    for name in ("training", "trade-off", "per-class")
]


def of_panels(suffix):
    return [panel.with_suffix(suffix) for panel in PANELS]


rule tabulate:
    input:
        [layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
    output:
        csv=report(layout.tables / "main.csv", caption="../report/table.rst", category="Tables"),
        md=layout.tables / "main.md",
        tex=layout.tables / "main.tex",
        metrics=HEADLINES,
    log:
        log_of("tabulate"),
    params:
        settings=canonical(experiment.matrix()),
        code=steps.table_code(),
    shell:
        "robust-distillation tabulate {experiment.arguments} > {log} 2>&1"


rule draw_figures:
    input:
        outcomes=[layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
        curves=[folder / "metrics.jsonl" for folder in STUDENTS],
    output:
        png=report(of_panels(".png"), caption="../report/figure.rst", category="Figures"),
        pdf=of_panels(".pdf"),
    log:
        log_of("draw-figures"),
    params:
        settings=canonical(experiment.matrix()),
        code=steps.figure_code(),
    shell:
        "robust-distillation draw-figures {experiment.arguments} > {log} 2>&1"


rule track:
    input:
        outcomes=[layout.outcomes(folder) for folder in TEACHERS + STUDENTS],
        curves=[folder / "metrics.jsonl" for folder in TEACHERS + STUDENTS],
        records=[folder / "record.json" for folder in TEACHERS + STUDENTS],
        tables=rules.tabulate.output,
        figures=rules.draw_figures.output,
    output:
        layout.tracked,
    log:
        log_of("track"),
    params:
        code=steps.tracking_code(),
    shell:
        "robust-distillation track {experiment.arguments} > {log} 2>&1"
