"""What a model knows beyond its accuracy, where the experiment asks for it: structure, and transfer to other tasks."""


rule structure:
    input:
        data=layout.data,
        weights=lambda w: looked_at(w)[1][0],
    output:
        values=layout.structure(TRAINED),
        record=layout.record(layout.structure(TRAINED)),
    log:
        log_of("structure", "{trained}"),
    threads: experiment.compute.threads
    params:
        settings=canonical(experiment.structure_settings()) if experiment.file.structure else "",
        code=lambda w: steps.structure_code(experiment, looked_at(w)[0]),
        model=model_of,
    shell:
        "robust-distillation structure {params.model} {experiment.arguments} > {log} 2>&1"


rule transfer:
    input:
        data=layout.target_data("{target}"),
        weights=lambda w: looked_at(w)[1][0],
    output:
        outcomes=layout.transferred("{target}", TRAINED),
        weights=layout.transferred("{target}", TRAINED).with_suffix(".safetensors"),
        record=layout.record(layout.transferred("{target}", TRAINED)),
    log:
        log_of("transfer", "{target}", "{trained}"),
    threads: experiment.compute.threads
    params:
        settings=lambda w: canonical(experiment.transfer_settings(w.target)),
        code=lambda w: steps.transfer_code(experiment, w.target, looked_at(w)[0]),
        model=model_of,
    shell:
        "robust-distillation transfer {wildcards.target} {params.model} {experiment.arguments} > {log} 2>&1"
