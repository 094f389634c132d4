def teaching(wildcards):
    """What a method asks of its teacher: cache files, and the teacher itself where it must see adversarial images."""
    needs = experiment.methods[wildcards.method].needs
    files = [
        file
        for kind in needs.cached
        for values in [layout.cache(wildcards.teacher, kind)]
        for file in (values, values.with_suffix(".json"))
    ]
    if needs.teacher:
        files.append(teacher_weights(wildcards.teacher))
    return files


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
