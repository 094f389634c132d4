"""Measures the energy that CPU and GPU use while a job runs, if the machine has counters that can be read.

CPU packages are read by RAPL (Linux powercap; most kernels let only root read it), NVIDIA GPUs by NVML. Both count for
the whole device, so the energy of other jobs that run at the same time is included.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
ZONES = "intel-rapl:*"  # AMD's too
MICRO, MILLI = 1e-6, 1e-3  # joules per count of RAPL and of NVML


class Meter:
    """Meter of the energy that the CPU and the GPU use from its creation on, for the record of a job.

    CPU packages are read by RAPL (Linux powercap; most kernels let only root read it), NVIDIA GPUs by NVML. The
    function `read` returns the joules since the creation. The energy of other jobs on the same device is included. The
    record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.

    Attributes:
        packages: folder of each CPU package in Linux's powercap interface, to its counter at the creation, in
            microjoules. Empty if no counter can be read.
        gpus: UUID of each NVIDIA GPU, to its counter at the creation, in millijoules. Empty if no counter can be read.
    """

    def __init__(self, powercap: Path = POWERCAP):
        """Reads the counters for the first time. A counter that cannot be read is no error.

        Args:
            powercap: folder of Linux's powercap interface, /sys/class/powercap.
        """
        # Other zones are parts of a package (its cores, its memory) or contain it (psys, the platform).
        packages = [zone for zone in sorted(powercap.glob(ZONES)) if _text(zone / "name").startswith("package")]
        self.packages = {zone: count for zone in packages if (count := _number(zone / "energy_uj")) is not None}
        self.gpus = _gpu_counters()

    def read(self) -> dict[str, Any] | None:
        """Returns the energy used since the creation by all CPU packages and by one GPU.

        The GPU is the one on which this process made tensors. A source (CPU or GPU) is left out if one of its counters
        cannot be read, the GPU also if this process used none.

        Returns:
            `{"joules": float, "source": str}`. The joules are the sum over the sources, rounded to 3 decimals. The
            source is `RAPL` (CPU), `NVML` (GPU) or `RAPL + NVML`. None if no source is left.
        """
        readings = {"RAPL": self._packages(), "NVML": self._gpus()}
        spent = {source: joules for source, joules in readings.items() if joules is not None}
        return {"joules": round(sum(spent.values()), 3), "source": " + ".join(spent)} if spent else None

    def _packages(self) -> float | None:
        """Returns the joules that the CPU packages used. None if a counter cannot be read."""
        if not self.packages:
            return None
        total = 0
        for zone, before in self.packages.items():
            now = _number(zone / "energy_uj")
            if now is None:
                return None
            if now < before:  # the counter overflowed; once, as far as can be known
                largest = _number(zone / "max_energy_range_uj")
                if largest is None:
                    return None
                now += largest
            total += now - before
        return total * MICRO

    def _gpus(self) -> float | None:
        """Returns the joules of the GPU that this process used. None if it used none."""
        used = _gpu_used()
        now = _gpu_counters() if used else {}
        return (now[used] - self.gpus[used]) * MILLI if used in now and used in self.gpus else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdecimal() else None


def _gpu_used() -> str | None:
    """Returns the UUID of the GPU on which this process has made tensors. None if there is none."""
    torch = sys.modules.get("torch")  # a process that has not imported torch used no GPU
    if torch is None or not torch.cuda.is_initialized():
        return None
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _gpu_counters() -> dict[str, int]:
    """Reads each GPU's counter. Returns UUID to millijoules since the driver was loaded; empty without NVIDIA GPUs."""
    if not Path("/proc/driver/nvidia").exists():  # importing pynvml would cost each job some milliseconds
        return {}
    import pynvml

    counters = {}
    try:
        pynvml.nvmlInit()
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                counters[pynvml.nvmlDeviceGetUUID(device)] = pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return {}
    return counters
