rule train_teacher:
    input:
        layout.data,
    output:
        best=TEACHER / "best.safetensors",
        last=TEACHER / "last.safetensors",
        metrics=TEACHER / "metrics.jsonl",
        record=TEACHER / "record.json",
    log:
        log_of("train-teacher", "{teacher}"),
    wildcard_constraints:
        teacher=one_of(set(experiment.teachers) - set(IMPORTED)),
    priority: 100  # everything that is distilled waits for it
    threads: lambda w: experiment.teachers[w.teacher].devices * experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.teacher_settings(w.teacher)),
        code=lambda w: steps.teacher_code(experiment, w.teacher),
    shell:
        "robust-distillation train-teacher {wildcards.teacher} {experiment.arguments} > {log} 2>&1"


rule import_teacher:
    input:
        layout.data,
    output:
        imported=TEACHER / "imported.safetensors",
        record=TEACHER / "record.json",
    log:
        log_of("import-teacher", "{teacher}"),
    wildcard_constraints:
        teacher=one_of(IMPORTED),
    priority: 100
    localrule: True  # on a cluster: where the network is
    params:
        settings=lambda w: canonical(experiment.teacher_settings(w.teacher)),
        code=lambda w: steps.import_code(experiment, w.teacher),
    shell:
        "robust-distillation import-teacher {wildcards.teacher} {experiment.arguments} > {log} 2>&1"
