"""Progress reports of a training: the status line of each tick, the progress bar within it, TensorBoard scalars."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter

from tqdm import tqdm

from dnnlib import gpus
from dnnlib.log import format_time
from dnnlib.tflib.autosummary import Autosummary
from training import schedule

SHOWN = (("Loss/G", "G"), ("Loss/D", "D"), ("Regularizer/r1", "R1"), ("Regularizer/r2", "R2"), ("Regularizer/gp", "GP"),
         ("Regularizer/path_length", "PL"), ("Gradients/G", "|dG|"), ("Gradients/D", "|dD|"))  # fmt: skip


def peak_memory_gb():
    """Peak resident memory of this process on the host so far (for GPUs see dnnlib.gpus), in GB (2^30 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (30 if sys.platform == "darwin" else 20)  # bytes on macOS, KiB elsewhere


class Status:
    """Reports the progress of a running training.

    Args:
        config: ScheduleConfig.
        events_dir: folder for TensorBoard events, or None.
        images, seconds: progress of the run when this session begins.
        rates: dict network name -> learning rate.
    """

    def __init__(self, config, events_dir, images, seconds, rates):
        self.summary = Autosummary(events_dir, images)
        self._config = config
        self._rates = {f"Rates/{name}": rate for name, rate in rates.items()}
        self._total_images = config.total_kimg * 1000
        self._seconds_before = seconds
        self._session_start = time.time()
        self._paused, self._snapshots = Counter(), 0
        self._begin_tick(images)

    def _begin_tick(self, images):
        self._tick_images = images
        self._tick_start = time.time()
        self._tick_paused = Counter(self._paused)
        size = min(self._config.tick_kimg * 1000, self._total_images - images)
        self._bar = tqdm(total=max(int(size), 0), unit="img", leave=False, disable=None)

    @property
    def seconds(self):
        """Time the run has taken, over all sessions."""
        return self._seconds_before + time.time() - self._session_start

    def step(self, statistics, images):
        """Report a step: its statistics and number of images."""
        self.summary.add(statistics)
        self._bar.update(images)

    def pause(self, saving, metrics):
        """Exclude the time of a snapshot, which was not training, from the rates.

        Args:
            saving: seconds spent on files and images.
            metrics: seconds spent on metrics.
        """
        self._paused.update(saving=saving, metrics=metrics)
        self._snapshots += 1

    def tick(self, number, images, totals):
        """End a tick: print its line, write its scalars.

        Args:
            number: number of the tick.
            images: number shown since the beginning of the run.
            totals: dict name -> number, reported as they are instead of as means.

        Returns:
            dict name -> number, everything that was reported.
        """
        self._bar.close()
        shown = max(images - self._tick_images, 1)
        paused = {f"Timing/{kind}_seconds": self._paused[kind] - self._tick_paused[kind] for kind in ("saving", "metrics")}
        training = max(time.time() - self._tick_start - sum(paused.values()), 1e-9)
        rate = shown / training
        left = max(self._total_images - images, 0) / rate
        if self._snapshots:
            left += schedule.snapshots_left(images, self._config) * sum(self._paused.values()) / self._snapshots
        memory = {"Resources/peak_memory_gb": peak_memory_gb()}
        gpu_memory = gpus.memory_used_gb()
        if gpu_memory is not None:
            memory["Resources/gpu_memory_gb"] = gpu_memory
        timing = {"Progress/tick": number, "Progress/kimg": images / 1000, "Timing/images_per_second": rate,
                  "Timing/seconds_per_kimg": 1000 / rate, "Timing/total_hours": self.seconds / 3600,
                  **paused, **memory, **self._rates, **totals}  # fmt: skip
        means = self.summary.report(images, timing)
        losses = "  ".join(f"{label} {means[name]:.4g}" for name, label in SHOWN if name in means)
        print(
            f"tick {number}  kimg {images / 1000:.3f}  {losses}  time {format_time(self.seconds)}  left {format_time(left)}  "
            f"sec/kimg {1000 / rate:.1f}  images/s {rate:.1f}  "
            f"memory {' + '.join(f'{gb:.2f}' for gb in memory.values())} GB",
            flush=True,
        )
        self._begin_tick(images)
        return means

    def close(self):
        """End the session."""
        self._bar.close()
        self.summary.close()
