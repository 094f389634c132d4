"""From data to the comparison table. Choose another experiment by
`snakemake --config experiment=experiments/NAME.yaml`, and put other values in place by `overlay=FILE`."""

import gc

gc.set_threshold(50_000)  # of thousands of jobs none goes: to look for garbage took a seventh of the time to plan them


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/cache.smk"
include: "workflow/rules/students.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/analyses.smk"
include: "workflow/rules/robustness.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/comparing.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.index.input,
        rules.index.output,
