def teaching(wildcards):
    """What a method asks of its teacher: cache files, and the teacher itself where it must see adversarial images."""
    settings, roles = experiment.methods[wildcards.method].settings, experiment.roles(wildcards.teacher)
    files = [
        file
        for role, kind in settings.cached
        for values in [layout.cache(roles[role], kind)]
        for file in (values, values.with_suffix(".json"))
    ]
    return files + [teacher_weights(roles[role]) for role in settings.teachers()]


def choice(wildcards):
    """What the tuning stage chose for a method, where there is such a stage."""
    names = wildcards.teacher, wildcards.student, wildcards.method
    return [layout.choice(*names)] if experiment.file.tuning else []


rule train_student:
    input:
        data=layout.data,
        teaching=teaching,
        choice=choice,
    output:
        best=STUDENT / "best.safetensors",
        last=STUDENT / "last.safetensors",
        metrics=STUDENT / "metrics.jsonl",
        record=STUDENT / "record.json",
    log:
        log_of("train-student", "{teacher}", "{student}", "{method}", "seed-{seed}"),
    threads: experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.student_settings(run_of(w))),
        code=lambda w: steps.student_code(experiment, run_of(w)),
        run="{teacher}/{student}/{method}/seed-{seed}",
    shell:
        "robust-distillation train-student {params.run} {experiment.arguments} > {log} 2>&1"
