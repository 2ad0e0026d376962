"""One training step as a list of named stages over a graph that is built once.

A stage runs its rounds (gradient accumulation) and then its update. A batch's images are split over the workers, the rounds and the
devices; every part (--batch-gpu images) derives its random numbers from the global index of its first image, wherever it is computed.
Letters: n images of one device in one round, C H W image, K latents, L layers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Callable, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from dnnlib import EasyDict, UserError, tflib
from dnnlib.tflib.optimizer import Optimizer
from training import loss, schedule
from training.augment import augment

PATH_LENGTH_DECAY = 0.01  # Karras et al. 2020, appendix B
SKIPS_IN_ROW = 100  # consecutive skipped updates of one loss after which the training ends


class Batch(NamedTuple):
    """Input of one step of this worker: its share of the batch, n images."""

    position: int         # global index of the first image
    reals: np.ndarray     # uint8 [n, C, H, W]
    labels: np.ndarray    # float32 [n, c_dim]


class Stage(NamedTuple):
    """A named part of the step."""

    name: str
    interval: int         # steps between runs
    run: Callable         # Batch -> dict of statistics, name -> float


class _Phase(NamedTuple):
    """What is run for one loss: see TrainingStep._phase and Optimizer.build."""

    network: str
    label: str
    means: dict           # statistics, name -> tensor
    updates: dict         # moving averages of activations, tf.Variable -> tensor of its next value
    accumulate: tf.Operation | None
    finish: tuple


class TrainingStep:
    """Graph, optimizers and stages of a training.

    Args:
        G, D, Gs: tflib.Network; Gs is the moving average of G.
        config: training.config.TrainingConfig.
        label_table: float32 [count, c_dim], the dataset's labels, from which those of generated images are drawn.
        devices: list of device strings.

    Attributes:
        stages: list of Stage, in order.
        optimizers: dict "G" / "D" -> Optimizer.
        fetches: dict label of a loss -> list of the tensors and operations that one of its rounds evaluates.
        path_length_mean: float, moving average of the path lengths.
        totals: dict of numbers that are not averaged over steps: updates skipped so far, loss scales.
    """

    def __init__(self, G, D, Gs, config, label_table, devices):
        self.G, self.D, self.Gs = G, D, Gs
        self.config = config
        self.devices = devices
        self.path_length_mean = 0.0
        self.fetches, self.totals = {}, {}
        self._skipped_in_row = Counter()  # by the label of the loss
        self._half = {"half": tflib.half_type()} if config.precision == "mixed" else {}  # not all architectures accept it
        self.part_size = config.schedule.batch_gpu
        self.rounds = schedule.rounds_per_step(config.schedule.batch_size, self.part_size, len(devices) * tflib.workers().count)
        self._make_inputs()
        if G.input_shapes[1][0]:
            with tf.device("/cpu:0"):  # in host memory
                self._label_table = tflib.variables.from_array(label_table)
        self._make_optimizers()
        self.stages = self._make_stages()

    def run(self, batch, step):
        """Run the stages that are due in this step.

        Args:
            batch: Batch.
            step: int, from 0.

        Returns:
            dict of statistics, name -> float.
        """
        statistics = {}
        for stage in self.stages:
            if step % stage.interval == 0:
                statistics.update(stage.run(batch))
        return statistics

    def _make_inputs(self):
        images = self.part_size * len(self.devices)
        (channels, _, width), label_shape = self.D.input_shapes
        self._position = tf.placeholder(tf.int64, [], name="position")
        self._reals = tf.placeholder(tf.uint8, [images, channels, width, width], name="reals")  # stored square
        self._labels = tf.placeholder(tf.float32, [images, *label_shape], name="labels")
        self._path_mean = tf.placeholder(tf.float32, [], name="path_length_mean")
        self._ema_beta = tf.placeholder(tf.float32, [], name="ema_beta")

    def _make_optimizers(self):
        config = self.config.loss
        g_adam = self.config.g_adam.lazy(config.g_reg_interval) if config.pathreg else self.config.g_adam
        d_adam = self.config.d_adam.lazy(config.d_reg_interval) if config.d_reg != "non" else self.config.d_adam
        shared = {"rounds": self.rounds, "loss_scaling": self._half.get("half") == tf.float16}
        self.optimizers = {
            "G": Optimizer("G_optimizer", self.G.trainables, **shared, **asdict(g_adam)),
            "D": Optimizer("D_optimizer", self.D.trainables, **shared, **asdict(d_adam)),
        }

    def _make_stages(self):
        config = self.config.loss
        stages = [Stage("generator", 1, self._phase("G", "G", self._generator_loss))]
        if config.pathreg:
            phase = self._phase("G", "G_path_length", self._path_length_penalty)
            stages.append(Stage("path_length", config.g_reg_interval, lambda batch: self._track_path_length(phase(batch))))
        stages.append(Stage("discriminator", 1, self._phase("D", "D", self._discriminator_loss)))
        if config.d_reg != "non":
            stages.append(Stage(config.d_reg, config.d_reg_interval, self._phase("D", f"D_{config.d_reg}", self._discriminator_penalty)))
        for network in (self.G, self.D):
            after = network.after_update_op()
            if after is not None:
                stages.append(Stage(f"after_update_{network.name}", 1, lambda batch, after=after: tflib.run(after) or {}))
        average = self.Gs.moving_average_op(self.G, self._ema_beta)
        stages.append(Stage("moving_average", 1, lambda batch: tflib.run(average, {self._ema_beta: self._beta(batch)}) or {}))
        return stages

    def _beta(self, batch):
        sizes = self.config.schedule
        step = batch.position // sizes.batch_size
        return schedule.moving_average_beta(sizes.batch_size, sizes.ema_kimg, step if sizes.ema_warmup else None)

    def _phase(self, network, label, build_loss):
        """Build one loss on every device, with its update; return the function that runs it on a Batch.

        Args:
            network: "G" or "D", whose optimizer applies the gradients.
            label: name of the gradient norm in the statistics.
            build_loss: function part -> (scalar loss, dict of statistics, list of (variable, next value)).
        """
        losses, statistics, pairs = [], [], []
        for index, device in enumerate(self.devices):
            with tf.device(device), tf.name_scope(f"part{index}"):
                value, shown, after = build_loss(self._part(index))
                losses.append(value)
                statistics.append(shown)
                pairs.append(after)
        optimizer = self.optimizers[network]
        accumulate, finish = optimizer.build(losses, self.devices)
        means, updates = self._means(statistics, pairs)
        phase = _Phase(network, label, means, updates, accumulate, finish)
        self.fetches[label] = [*means.values(), *updates.values(), *(finish if accumulate is None else [accumulate])]
        return lambda batch: self._run_phase(phase, batch)

    def _means(self, statistics, pairs):
        """Statistics and next values of variables, averaged over all devices of all workers.

        Args:
            statistics: list of dicts name -> scalar tensor, one per device.
            pairs: list of lists of (variable, next value), one per device.

        Returns:
            (dict name -> scalar tensor, dict tf.Variable -> tensor).
        """
        own = [[*shown.values(), *(value for _, value in after)] for shown, after in zip(statistics, pairs)]
        means = [tf.add_n(list(parts)) / len(parts) for parts in zip(*own)]
        means = tflib.workers().mean(means, self.devices[0])
        return dict(zip(statistics[0], means)), dict(zip((variable for variable, _ in pairs[0]), means[len(statistics[0]) :]))

    def _run_phase(self, phase, batch):
        once = phase.accumulate is None
        per_round = ([*phase.means.values()], [*phase.updates.values()], phase.finish if once else phase.accumulate)
        results = [tflib.run(per_round, self._feed(batch, index)) for index in range(self.rounds)]
        norm, squares, applied, skipped, scale = results[0][2] if once else tflib.run(phase.finish)
        self.totals[f"Skipped/{phase.network}"] = int(skipped)
        if self.optimizers[phase.network].loss_scaling:
            self.totals[f"Loss_scale/{phase.network}"] = float(scale)
        if not applied:
            self._report_skip(phase, squares)
            return {}
        self._skipped_in_row[phase.label] = 0
        if phase.updates:
            next_values = [np.mean(values, axis=0) for values in zip(*(r[1] for r in results))]
            tflib.variables.assign(dict(zip(phase.updates, next_values)))
        means = np.mean([r[0] for r in results], axis=0)
        shown = {name: float(value) for name, value in zip(phase.means, means)}
        return {f"Gradients/{phase.label}": float(norm), **shown}

    def _report_skip(self, phase, squares):
        """Print that an update was skipped because its gradients were not finite; what goes with it may not be finite either.

        Raises:
            UserError: it was the hundredth in a row for this loss.
        """
        variable = self.optimizers[phase.network].first_bad(squares)
        self._skipped_in_row[phase.label] += 1
        count = self._skipped_in_row[phase.label]
        if count == SKIPS_IN_ROW:
            raise UserError(f"{phase.label}: {count} updates in a row had non-finite gradients, first in {variable}; "
                            "the last good snapshot is kept")  # fmt: skip
        print(f"{phase.label}: update skipped, non-finite gradient in {variable}")

    def _feed(self, batch, round_index):
        images = self.part_size * len(self.devices)
        start = round_index * images
        return {
            self._position: batch.position + start,
            self._reals: batch.reals[start : start + images],
            self._labels: batch.labels[start : start + images],
            self._path_mean: self.path_length_mean,
        }

    def _part(self, index):
        """One device's share of a round: streams, real images [n, C, H, W] in [-1, 1] and their labels."""
        rows = slice(index * self.part_size, (index + 1) * self.part_size)
        streams = tflib.RandomStreams(self.config.seed, self._position + rows.start)
        height, width = self.D.input_shapes[0][1:]
        top = (width - height) // 2  # wide images: the networks do not see the padding
        reals = tf.cast(self._reals[rows, :, top : top + height], tf.float32) / 127.5 - 1
        if self.config.mirror_augment:
            mirrored = streams.uniform("mirror", [self.part_size]) < 0.5
            reals = tf.where(mirrored, tf.reverse(reals, [3]), reals)
        return EasyDict(streams=streams, reals=reals, labels=self._labels[rows])

    def _latents(self, streams, count):
        """Fresh latents [count, K, z_dim], and labels [count, c_dim] drawn from the dataset's."""
        latent_shape, label_shape = self.G.input_shapes
        z = streams.normal("z", [count, *latent_shape])  # [n, K, z_dim]
        if label_shape[0]:
            rows = self._label_table.shape.as_list()[0]
            chosen = tf.cast(streams.uniform("labels", [count]) * rows, tf.int32)
            labels = tf.gather(self._label_table, tf.minimum(chosen, rows - 1))
        else:
            labels = tf.zeros([count, 0])
        return z, labels

    def _fakes(self, streams, count):
        """Generate images from fresh latents and labels: EasyDict of the generator's outputs, with the labels."""
        z, labels = self._latents(streams, count)
        outputs = self.G.get_output_for(z, labels, training=True, streams=streams.child("generator"), noise_mode="random", **self._half)
        return EasyDict(outputs, labels=labels)

    def _scores(self, images, labels, streams):
        return self.D.get_output_for(images, labels, training=True, streams=streams, **self._half).scores

    def _augment(self, images, streams):
        return augment(images, self.config.augment, streams.child("augment"))

    def _generator_loss(self, part):
        streams = part.streams.child("generator_loss")
        fakes = self._fakes(streams, self.part_size)
        scores = self._scores(self._augment(fakes.images, streams), fakes.labels, streams.child("discriminator"))
        value = tf.reduce_mean(loss.generator_loss(self.config.loss.g_loss, scores))
        return value, {"Loss/G": value}, fakes.updates

    def _path_length_penalty(self, part):
        streams = part.streams.child("path_length")
        fakes = self._fakes(streams, max(self.part_size // 2, 1))
        directions = streams.normal("directions", tf.shape(fakes.images))
        lengths = loss.path_lengths(fakes.images, fakes.ws, directions)  # [n / 2]
        penalty = tf.reduce_mean(tf.square(lengths - self._path_mean))
        weight = 2 * self.config.loss.g_reg_weight * self.config.loss.g_reg_interval
        return penalty * weight, {"Regularizer/path_length": penalty, "Path/length": tf.reduce_mean(lengths)}, []

    def _track_path_length(self, statistics):
        if "Path/length" in statistics:  # the update was not skipped
            self.path_length_mean += PATH_LENGTH_DECAY * (statistics["Path/length"] - self.path_length_mean)
        return dict(statistics, **{"Path/mean": self.path_length_mean})

    def _discriminator_loss(self, part):
        streams = part.streams.child("discriminator_loss")
        fakes = self._fakes(streams, self.part_size)
        config, scores, shown, consistency = self.config.loss, {}, {}, 0.0
        kinds = (("fake", tf.stop_gradient(fakes.images), fakes.labels, config.bcr_fake),
                 ("real", part.reals, part.labels, config.bcr_real))  # fmt: skip
        for name, images, labels, weight in kinds:
            own = streams.child(name)
            scores[name] = self._scores(self._augment(images, own), labels, own)
            if weight:  # balanced consistency regularization: augmentation should not change the scores
                clean = self._scores(images, labels, own.child("clean"))
                shown[f"Regularizer/bcr_{name}"] = tf.reduce_mean(loss.consistency(scores[name], clean))
                consistency += weight * shown[f"Regularizer/bcr_{name}"]
        value = tf.reduce_mean(loss.discriminator_loss(config.d_loss, scores["fake"], scores["real"]))
        shown.update({"Loss/D": value, **{f"Scores/{name}": tf.reduce_mean(score) for name, score in scores.items()}})
        return value + consistency, shown, []

    def _discriminator_penalty(self, part):
        kind = self.config.loss.d_reg
        streams = part.streams.child(kind)
        images, labels = part.reals, part.labels
        if kind != "r1":
            fakes = self._fakes(streams, self.part_size)
            labels = fakes.labels if kind == "r2" else labels
            images = fakes.images if kind == "r2" else loss.interpolate(part.reals, fakes.images, streams)
        images = tf.stop_gradient(images)
        scores = self._scores(self._augment(images, streams), labels, streams.child("discriminator"))
        if kind == "gp":
            penalty = tf.reduce_mean(loss.gradient_penalty(scores, images))
        else:
            penalty = tf.reduce_mean(loss.squared_gradient(scores, images)) / 2
        weight = self.config.loss.gamma * self.config.loss.d_reg_interval
        return penalty * weight, {f"Regularizer/{kind}": self.config.loss.gamma * penalty}, []
