rule prepare_data:
    output:
        layout.data,
    params:
        settings=canonical(experiment.data_settings()),
        code=steps.data_code(experiment),
    log:
        log_of("prepare-data"),
    shell:
        "robust-distillation prepare-data {experiment.arguments} > {log} 2>&1"
