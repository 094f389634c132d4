"""The tuning stage: a short run per candidate, and one choice per teacher, student and method."""

CANDIDATES = layout.candidates("{teacher}", "{student}", "{method}")
MODEL = "{teacher}/{student}/{method}"


rule tune:
    input:
        data=layout.data,
        teaching=teaching,
    output:
        metrics=CANDIDATES / "{candidate}" / "metrics.jsonl",
        record=CANDIDATES / "{candidate}" / "record.json",
    log:
        log_of("tune", "{teacher}", "{student}", "{method}", "{candidate}"),
    wildcard_constraints:
        candidate="[^/]+",
    priority: 50  # a method's students wait for all of them
    threads: experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.candidate_settings(w.student, w.method, w.candidate)),
        code=lambda w: steps.tune_code(experiment, w.teacher, w.student, w.method),
        model=MODEL,
    shell:
        "robust-distillation tune {params.model} {wildcards.candidate} {experiment.arguments} > {log} 2>&1"


rule choose:
    input:
        lambda w: [
            layout.candidates(w.teacher, w.student, w.method) / name / "metrics.jsonl"
            for name in experiment.candidates[w.method]
        ],
    output:
        choice=CANDIDATES / "choice.json",
        candidates=CANDIDATES / "candidates.json",
        record=layout.record(CANDIDATES / "choice.json"),
    log:
        log_of("choose", "{teacher}", "{student}", "{method}"),
    priority: 50
    params:
        settings=lambda w: canonical(experiment.choice_settings(w.method)),
        code=steps.choice_code(),
        model=MODEL,
    shell:
        "robust-distillation choose {params.model} {experiment.arguments} > {log} 2>&1"
