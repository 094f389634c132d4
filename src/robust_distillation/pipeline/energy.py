"""Energy that the machine used while a job ran, where it can be read.

CPU packages by RAPL (Linux powercap; most kernels let only root read it), NVIDIA GPUs by NVML. Both count for the whole
device: what other jobs used meanwhile is in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
ZONES = "intel-rapl:*"  # AMD's, too
MICRO, MILLI = 1e-6, 1e-3  # joules that one count of RAPL and of NVML stands for


class Meter:
    """Starts counting; `read` says what was used since then."""

    def __init__(self, powercap: Path = POWERCAP):
        # Other zones are parts of a package (its cores, its memory) or hold it (psys, the platform).
        packages = [zone for zone in sorted(powercap.glob(ZONES)) if _text(zone / "name").startswith("package")]
        self.packages = {zone: count for zone in packages if (count := _number(zone / "energy_uj")) is not None}
        self.gpus = _gpu_counters()

    def read(self) -> dict[str, Any] | None:
        """`joules` used, and `source`: which counters they are from. None where none can be read."""
        spent = {"RAPL": self._packages(), "NVML": self._gpus()}
        known = {source: joules for source, joules in spent.items() if joules is not None}
        return {"joules": round(sum(known.values()), 3), "source": " + ".join(known)} if known else None

    def _packages(self) -> float | None:
        if not self.packages:
            return None
        total = 0
        for zone, before in self.packages.items():
            now = _number(zone / "energy_uj")
            if now is None:
                return None
            if now < before:  # it went through its largest value and began again; once, as far as can be told
                largest = _number(zone / "max_energy_range_uj")
                if largest is None:
                    return None
                now += largest
            total += now - before
        return total * MICRO

    def _gpus(self) -> float | None:
        """Only of the GPU that this job used, which is known once it has."""
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
    """The UUID of the GPU on which this process has made tensors."""
    torch = sys.modules.get("torch")  # a step that computed nothing with it used none
    if torch is None or not torch.cuda.is_initialized():
        return None
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _gpu_counters() -> dict[str, int]:
    """UUID to millijoules since the driver was loaded, of each GPU that counts them."""
    if not Path("/proc/driver/nvidia").exists():  # importing NVML's package would cost each job some milliseconds
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
