"""The training loop: steps, ticks, snapshots, stopping and continuing."""

from __future__ import annotations

import errno
import time

from dnnlib import UserError, tflib
from dnnlib.errors import not_fatal
from dnnlib.runs import clear_partials
from dnnlib.signals import StopRequest
from training import run_files, schedule, training_state
from training.report import append_stats
from training.samples import SampleGrid
from training.status import Status
from training.step import Batch, TrainingStep

GRID_TAGS = {"images": "samples", "maps": "attention"}  # their names in TensorBoard


class TrainingLoop:
    """One session of training a run. With several workers, each runs its own loop, and worker 0's writes the files.

    Args:
        run_dir: folder of the run.
        networks: dict "G", "D", "Gs" -> tflib.Network.
        config: training.config.TrainingConfig.
        outputs: training.config.OutputConfig.
        dataset: training.dataset.Dataset.
        devices: list of device strings.
        record: JSON-ready dict stored in every training state: what the run was made from.
        evaluate: function (Gs, snapshot path, run folder) -> dict metric name -> number, called with every snapshot, in all workers (the
            path is None if saving failed; path and folder are None in workers other than 0); or None.
        state: TrainingState to continue from, or None.
        show: function (Gs, images shown), called with every snapshot after `evaluate`; or None.
    """

    def __init__(self, run_dir, networks, config, outputs, dataset, devices, record, evaluate=None, state=None, show=None):
        self.run_dir = run_dir
        self.networks = networks
        self.leads = tflib.workers().leads
        self.config = config
        self.outputs = outputs
        self.dataset = dataset
        self.record = record
        self.evaluate = evaluate
        self.show = show
        self.step = TrainingStep(networks["G"], networks["D"], networks["Gs"], config, dataset.labels, devices)
        self.variables = training_state.state_variables(networks, self.step.optimizers)
        self.progress = training_state.Progress()
        if state is not None:
            training_state.restore(self.variables, state)
            self.progress = state.progress
            self.step.path_length_mean = state.progress.path_length_mean
        self.samples = SampleGrid(run_dir, dataset, networks["G"], config.seed, outputs.truncation_psi, outputs.keep_samples)
        events_dir = run_dir if outputs.summarize else None
        rates = {name: optimizer.learning_rate for name, optimizer in self.step.optimizers.items()}
        self.status = Status(config.schedule, events_dir, self.progress.images, self.progress.seconds, rates)
        self._saved_images = self._evaluated_images = None if state is None else self.progress.images
        self._save_error = None

    def run(self):
        """Train to the configured length, or until a signal asks to stop; save at the end.

        Returns:
            Whether the full length was reached.

        Raises:
            UserError: gradients remain non-finite, workers hold different weights, or the last state could not be saved.
        """
        if self.leads:
            self._begin_files()
        with StopRequest() as stop:
            finished = self._steps(stop)
            stopped = self._any(stop.asked is not None)
            if self._any(self._saved_images != self.progress.images):
                self.snapshot(evaluate=finished and not stopped and self._evaluated_images != self.progress.images)
            stopped = self._any(stop.asked is not None)  # no worker leaves before worker 0 has written everything
        self.status.close()
        if self._save_error:
            raise UserError(f"the last state was not saved: {self._save_error}")
        self._say_end(finished, stopped)
        return finished and not stopped

    def _say_end(self, finished, stopped):
        kimg = self.progress.images / 1000
        if not finished:
            print(f"stopped at kimg {kimg:.3f}: the same command continues the run", flush=True)
        elif stopped:
            print(f"training complete: kimg {kimg:.3f}; stopped before the metrics: run --eval to compute them", flush=True)
        else:
            print(f"training complete: kimg {kimg:.3f}", flush=True)

    def _begin_files(self):
        """Write what belongs at the start of a session, before its first step."""
        clear_partials(self.run_dir)
        try:
            self.samples.write_reals()
        except OSError as error:
            print(f"warning: reals.png is not written: {error}", flush=True)
        if self.progress.images == 0:
            self._write_grid()

    def _steps(self, stop):
        """Train until the end (returns True) or until any worker was asked to stop (False)."""
        schedule_config, workers = self.config.schedule, tflib.workers()
        total = schedule.steps_of(schedule_config.total_kimg, schedule_config.batch_size) * schedule_config.batch_size  # images
        batches = self.dataset.batches(schedule_config.batch_size // workers.count, seed=self.config.seed, position=self.progress.images,
                                       shard=workers.rank, shards=workers.count)  # fmt: skip
        while self.progress.images < total:
            if self._any(stop.asked is not None):
                return False
            before = schedule.tick_of(self.progress.images, schedule_config.tick_kimg)
            self._one_step(batches)
            tick = schedule.tick_of(self.progress.images, schedule_config.tick_kimg)
            if tick > before or self.progress.images >= total:
                number = max(tick, before + 1)  # the last one may be shorter
                self._record_tick(self.status.tick(number, self.progress.images, self.step.totals))
                if tick // schedule_config.snapshot_ticks > before // schedule_config.snapshot_ticks:
                    self.snapshot(evaluate=not self._any(stop.asked is not None))
        return True

    @staticmethod
    def _any(here):
        """Whether a condition holds in any worker."""
        return bool(tflib.gather([here]).any())

    def _one_step(self, batches):
        reals, labels = self._next_batch(batches)
        position = self.progress.images + tflib.workers().rank * len(reals)
        statistics = self.step.run(Batch(position, reals, labels), self.progress.step)
        self.progress.step += 1
        self.progress.images += self.config.schedule.batch_size
        self.progress.path_length_mean = self.step.path_length_mean
        self.status.step(statistics, self.config.schedule.batch_size)

    def _next_batch(self, batches):
        try:
            return next(batches)
        except UserError:  # an unreadable record ends the training; several workers could only save together
            if tflib.workers().count == 1 and self._saved_images != self.progress.images:
                self.snapshot(evaluate=False)
            raise

    def snapshot(self, evaluate):
        """Save the networks and the training state, remove old ones; then draw the sample grid and compute the metrics.

        The state is written after the networks: it is what a run continues from. On a full disk the oldest snapshots are deleted one at a
        time until there is room, but never the last one that was saved, and none where all are to be kept. If there is still no room, a
        warning says so, and the next snapshot tries again.
        """
        start, metrics = time.time(), 0.0
        self.progress.seconds = self.status.seconds
        images = self.progress.images
        state = training_state.capture(self.variables, self.progress, self.record)
        training_state.check_replicas(state)
        path = self._save(state, images)
        if self.leads:
            self._write_grid()
        if evaluate and self.evaluate is not None:
            self._evaluated_images, begun = images, time.time()
            results = self.evaluate(self.networks["Gs"], path, self.run_dir)
            metrics = time.time() - begun
            self.status.summary.scalars({f"Metrics/{name}": value for name, value in results.items()}, images)
        if self.show is not None:
            self.show(self.networks["Gs"], images)
        self.status.pause(saving=time.time() - start - metrics, metrics=metrics)

    def _save(self, state, images):
        """Write the files of a snapshot. Returns the networks' path, or None if saving failed or in workers other than 0."""
        if not self.leads:
            self._saved_images = images
            return None
        path, kept = run_files.snapshot_path(self.run_dir, images), self.outputs.last_snapshots
        self._save_error = self._write_snapshot(path, state, images)
        while _disk_is_full(self._save_error) and kept > 0 and run_files.remove_oldest(self.run_dir, self._saved_images or 0):
            self._save_error = self._write_snapshot(path, state, images)
        if self._save_error is not None:
            print(f"warning: cannot save the snapshot of {images} images: {self._save_error}", flush=True)
            return None
        self._saved_images = images
        run_files.remove_old(self.run_dir, kept)
        print(f"saved {path}", flush=True)
        return path

    def _write_snapshot(self, path, state, images):
        """Write the networks and the state. Returns the OSError that prevented it, or None."""
        try:
            tflib.save_snapshot(path, tuple(self.networks[name] for name in ("G", "D", "Gs")))
            training_state.save(run_files.state_path(self.run_dir, images), state)
        except OSError as error:
            return error
        return None

    def _record_tick(self, values):
        if not self.leads:
            return
        try:
            append_stats(self.run_dir, self.progress.images, values)
        except OSError as error:
            print(f"warning: the statistics of this tick are not recorded: {error}", flush=True)

    def _write_grid(self):
        with not_fatal("the sample grid is not written"):
            grids = self.samples.write(self.networks["Gs"], self.progress.images, self.outputs.batch_gpu)
            if self.outputs.summarize:
                for kind, grid in grids.items():
                    self.status.summary.image(GRID_TAGS[kind], grid, self.progress.images)


def _disk_is_full(error):
    """Whether an OSError (or None) says that there is no room left, on the disk or in the user's quota."""
    return error is not None and error.errno in (errno.ENOSPC, errno.EDQUOT)
