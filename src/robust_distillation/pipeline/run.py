"""Runs a step: one process at a time, from the state that a killed one left, with a record at its end."""

from __future__ import annotations

import os
import signal

from robust_distillation.errors import UserError
from robust_distillation.files import check_reachable, read_json, sha256
from robust_distillation.pipeline.record import Recorder
from robust_distillation.pipeline.step import UNCHANGED, Step, called
from robust_distillation.resume import STOPPERS, ResumableJob


def run_step(step: Step) -> None:
    """Runs one job, such as the training of one student: makes the outputs and writes the record.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs. It is not
    written if the job's step has none (the step `index`), or if the function of the step reports that the outputs did
    not change.

    A resumable job continues from the state that a killed process saved. If an earlier process finished the job after
    Snakemake lost track of it, its outputs are restored and the job is not run. If the job uses several devices,
    torchrun replaces this process and starts the command once per device. The first of these processes writes all
    files.

    Args:
        step: the job, an instance of a class of `pipeline.steps`, for example `TrainTeacher(experiment,
            teacher="wide")`. Its `inputs` (paths that must exist), `outputs`, `settings` and `run` (`module:function`
            that does the work) are used.

    Raises:
        UserError: if a file that the job reads is missing.
    """
    missing = [file for file in step.inputs if not file.is_file()]
    if missing:
        check_reachable(missing[0])
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    if step.devices > 1:
        from robust_distillation.training import parallel

        if not parallel.started():
            parallel.start(step.devices)
        if int(os.environ["RANK"]):  # the first process of a group saves, writes and logs for all
            for number in STOPPERS:
                signal.signal(number, signal.SIG_IGN)
            called(step.run)(step, None)
            return
    run, inputs = called(step.run), step.input_hashes()
    recorder = Recorder(step.name, step.settings, step.code)
    if not step.resumable:
        more = run(step)
        if more is not UNCHANGED and step.record:
            recorder.write(step.record, inputs, step.outputs, **(more or {}))
        return
    configuration = recorder.configuration(inputs)
    with ResumableJob(step.layout.state(step.artefact), configuration, step.experiment.compute.save_every) as work:
        if work.restore():  # a process that Snakemake does not know of had made them
            return
        more = run(step, work)
        recorder.write(step.record, inputs, step.outputs, work, **(more or {}))
        work.link_outputs({**read_json(step.record)["outputs"], str(step.record): sha256(step.record)})
