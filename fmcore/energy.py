"""Energy: how many joules the machine spent over a while, where it tells: Intel's and AMD's counters (RAPL) and NVIDIA's (NVML).

The counters are the machine's: whatever else it did in that time counts too, and the note that goes with a figure says so. Where
nothing can be read there is no figure, but a sentence with the reason. Never estimates from a processor's rated power.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
WITHIN = "All that the machine did in that time counts."
NO_NVML = "NVIDIA's pynvml is not installed (pip install nvidia-ml-py)"


@dataclass
class _Counter:
    """One counter that only rises, but for starting again at 0 after `wraps_at` microjoules."""

    path: Path
    wraps_at: int
    last: int
    total: int = 0

    def sample(self) -> None:
        now = int(self.path.read_text())
        self.total += now - self.last if now >= self.last else now + self.wraps_at - self.last
        self.last = now


class Meter:
    """Joules since it was made. `sample` has to be called more often than a counter wraps (minutes): every few seconds.

    powercap is a folder like Linux's /sys/class/powercap; nvml is the module pynvml or one that looks like it, None where there is none.
    """

    def __init__(self, *, powercap: Path = POWERCAP, nvml: Any = None, monotonic: Callable[[], float] = time.monotonic):
        self._monotonic, self._why_no_cpu, self._why_no_gpu = monotonic, "", ""
        self._counters = self._cpu_counters(powercap)
        self._gpus = _Gpus(nvml, monotonic) if nvml is not None else None
        if self._gpus is None:
            self._why_no_gpu = NO_NVML
        elif not self._gpus.handles:
            self._why_no_gpu = self._gpus.why

    def sample(self) -> None:
        """Read every counter; one that cannot be read any more is given up, and the figure with it."""
        try:
            for counter in self._counters:
                counter.sample()
        except (OSError, ValueError) as error:
            self._counters, self._why_no_cpu = [], f"a counter under {POWERCAP} could not be read to the end ({type(error).__name__})"
        if self._gpus is not None and self._gpus.handles and not self._gpus.sample():
            self._why_no_gpu = self._gpus.why

    def read(self) -> tuple[float | None, str]:
        """(joules so far, what they are of), or (None, why there is no figure)."""
        self.sample()
        gpu_j = self._gpus.total_j if self._gpus is not None and self._gpus.handles else None
        if not self._counters and gpu_j is None:
            return None, f"Not readable here: {self._why_no_cpu}; {self._why_no_gpu}."
        cpu_j = sum(counter.total for counter in self._counters) / 1e6
        if gpu_j is None:
            return cpu_j, f"Processor and memory by RAPL, no GPU ({self._why_no_gpu}). {WITHIN}"
        if not self._counters:
            return gpu_j, f"GPUs by NVML only; of the processor: {self._why_no_cpu}. {WITHIN}"
        return cpu_j + gpu_j, f"Processor and memory by RAPL, GPUs by NVML. {WITHIN}"

    def _cpu_counters(self, powercap: Path) -> list[_Counter]:
        """The packages and their memory: a core's or an uncore's joules are in its package's already, memory's are not."""
        found, refused = [], False
        for folder in sorted(powercap.glob("intel-rapl:*")):
            try:
                name = (folder / "name").read_text().strip()
                if name.startswith("package") or name == "dram":
                    wraps_at = int((folder / "max_energy_range_uj").read_text())
                    found.append(_Counter(folder / "energy_uj", wraps_at, int((folder / "energy_uj").read_text())))
            except PermissionError:
                refused = True
            except (OSError, ValueError):  # a domain that is switched off
                continue
        if refused:
            self._why_no_cpu = f"only root may read the energy counters under {powercap}"
            return []  # a part of them would be taken for the whole
        if not found:
            self._why_no_cpu = f"no energy counter under {powercap} (a virtual machine, or a processor without one)"
        return found


class _Gpus:
    """Joules of every GPU that NVML shows: its own counter where the card has one, else its power over time."""

    def __init__(self, nvml: Any, monotonic: Callable[[], float]):
        self._nvml, self._monotonic, self.why, self.total_j = nvml, monotonic, "NVML shows no GPU", 0.0
        self.handles: list[Any] = []
        self._last: list[tuple[float | None, float | None, float]] = []
        try:
            nvml.nvmlInit()
            self.handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
            self._last = [self._reading(handle) for handle in self.handles]
        except nvml.NVMLError as error:
            self.handles, self.why = [], f"NVML says {error}"

    def sample(self) -> bool:
        """Add what was spent since the last reading; False where the driver stopped answering."""
        try:
            for i, handle in enumerate(self.handles):
                (joules, watts, at), now = self._last[i], self._reading(handle)
                if now[0] is not None and joules is not None:
                    self.total_j += max(0.0, now[0] - joules)
                elif now[1] is not None and watts is not None:
                    self.total_j += (now[1] + watts) / 2 * (now[2] - at)
                self._last[i] = now
        except self._nvml.NVMLError as error:
            self.handles, self.why = [], f"NVML stopped answering: {error}"
        return bool(self.handles)

    def _reading(self, handle: Any) -> tuple[float | None, float | None, float]:
        """(joules by the card's counter or None, watts now or None, when). Raises NVMLError where the card tells neither."""
        at = self._monotonic()
        with contextlib.suppress(self._nvml.NVMLError):  # cards before Volta have no counter
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, None, at
        return None, self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000, at


def nvml() -> Any:
    """The module pynvml, or None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
