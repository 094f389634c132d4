"""Accuracy against eps, where the experiment asks for it."""


rule robustness:
    input:
        data=layout.data,
        weights=lambda w: looked_at(w)[1][0],
    output:
        values=layout.robustness(TRAINED),
        images=layout.robustness(TRAINED).with_suffix(".npz"),
        record=layout.record(layout.robustness(TRAINED)),
    log:
        log_of("robustness", "{trained}"),
    threads: experiment.compute.threads
    params:
        settings=canonical(experiment.robustness_settings()) if experiment.file.robustness else "",
        code=lambda w: steps.robustness_code(experiment, looked_at(w)[0]),
        model=model_of,
    shell:
        "robust-distillation robustness {params.model} {experiment.arguments} > {log} 2>&1"
