"""Compares the time of a whole run with the time that `plan` predicts.

It also prints the fraction of the cores' time that went into none of training, caching, attacking and analysing. The
experiment must have been run from nothing, with nothing else on the machine:

    robust-distillation plan --calibrate
    make reproduce
    python benchmarks/whole.py params.yaml --cores 2
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime

from robust_distillation.config import load
from robust_distillation.layout import Layout
from robust_distillation.planning.jobs import jobs_of, makespan
from robust_distillation.planning.speed import Speed, Unknown

COMPUTES = ("train-teacher", "train-student", "tune", "fill-cache", "attack", "structure", "robustness", "transfer")


def main() -> None:
    """Reads the records of the run and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--overlay")
    parser.add_argument("--cores", type=int, required=True, help="cores of the run")
    options = parser.parse_args()
    experiment = load(options.experiment, options.overlay)
    root, jobs = Layout(experiment.name).root, jobs_of(experiment)
    records = [json.loads(file.read_text()) for file in root.rglob("*record.json")]
    began = [datetime.fromisoformat(record["time"]["started"]).timestamp() for record in records]
    spent = [record["time"]["seconds"] for record in records]
    whole = max(map(sum, zip(began, spent, strict=True))) - min(began)
    try:
        seconds = Speed(experiment).seconds(jobs)
    except Unknown:
        parser.error("this machine was not measured: run `robust-distillation plan --calibrate` first")
    planned, start = (
        makespan(jobs, seconds, options.cores),
        min(seconds.values()),
    )  # a table costs a start
    print(f"{len(jobs)} jobs: {whole:.0f} s by their records, {planned:.0f} s planned ({planned / whole - 1:+.0%})")
    computed = 0.0
    for step in COMPUTES:
        measured = sum(time for time, record in zip(spent, records, strict=True) if record["step"] == step)
        predicted = sum(seconds[name] - start for name, job in jobs.items() if job.step == step)
        computed += measured
        print(f"  {step}: {measured:.0f} s, planned {predicted:.0f} s")
    print(f"  a start, planned for each job besides: {start:.1f} s")
    print(f"outside these steps: {1 - computed / whole / options.cores:.0%} of the cores' time")


if __name__ == "__main__":
    main()
