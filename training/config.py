"""Typed configuration of a training run: dataclasses, and functions that print, serialize and compare them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field


def to_dict(config):
    """A (nested) dataclass as plain JSON-ready values."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return list(config) if isinstance(config, tuple) else config


def flatten(values, prefix=""):
    """Nested dicts as one dict with dotted names."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def differences(old, new):
    """Where two (nested) dicts differ.

    Returns:
        list of (dotted name, old value, new value); a missing value is None.
    """
    old, new = flatten(old), flatten(new)
    names = sorted(set(old) | set(new))
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def describe(config):
    """The configuration as aligned lines "name  value"."""
    flat = flatten(to_dict(config))
    width = max(len(name) for name in flat)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in flat.items())


@dataclass(frozen=True)
class LossConfig:
    """Losses and regularizers (names as in training.loss)."""

    g_loss: str = "logistic_ns"     # a key of loss.GENERATOR_LOSSES
    d_loss: str = "logistic"        # a key of loss.DISCRIMINATOR_LOSSES
    d_reg: str = "r1"               # r1, r2, gp, non
    gamma: float = 10.0             # weight of d_reg
    pathreg: bool = False           # path length regularization of the generator
    g_reg_weight: float = 1.0       # half the weight of the path length penalty
    bcr_real: float = 0.0           # weight of consistency regularization (bCR) on reals
    bcr_fake: float = 0.0           # weight of consistency regularization (bCR) on fakes
    g_reg_interval: int = 4         # steps between regularizations of the generator
    d_reg_interval: int = 16        # steps between regularizations of the discriminator


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the discriminator's images (training.augment)."""

    kind: str = "none"              # one of augment.KINDS
    probability: float = 0.8        # of each operation, per image
    translation: float = 0.125      # largest translation, as a fraction of the image size
    cutout: float = 0.5             # size of the square that is cut out, as a fraction of the image size


@dataclass(frozen=True)
class AdamConfig:
    """One network's optimizer, before it is adapted to lazy regularization."""

    learning_rate: float = 0.002
    beta1: float = 0.0
    beta2: float = 0.99
    epsilon: float = 1e-8
    clip_norm: float | None = None  # global norm to clip gradients to

    def lazy(self, interval):
        """Equivalent settings for when every `interval`-th step adds a separate update of the regularizer.

        Source: StyleGAN2 (Karras et al. 2020), appendix B: c = n / (n + 1), learning rate times c, betas to the power c.
        """
        ratio = interval / (interval + 1)
        return dataclasses.replace(
            self, learning_rate=self.learning_rate * ratio, beta1=self.beta1**ratio, beta2=self.beta2**ratio
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """Sizes and lengths, in images unless the name says kimg (thousands of images)."""

    batch_size: int = 32            # images per update, over all rounds and devices
    batch_gpu: int = 4              # images that one device processes at once
    total_kimg: float = 25000
    tick_kimg: float = 8.0          # between status lines
    snapshot_ticks: int = 3         # ticks between snapshots
    ema_kimg: float = 10.0          # half-life of the moving average Gs
    ema_warmup: bool = False        # a shorter half-life in the first steps


@dataclass(frozen=True)
class TrainingConfig:
    """Everything besides the networks and the dataset that determines the weights that a training arrives at."""

    seed: int = 0
    mirror_augment: bool = False
    precision: str = "fp32"         # fp32, tf32 (see tflib.allow_tf32), or mixed: 16 bits at the four highest resolutions
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    g_adam: AdamConfig = field(default_factory=AdamConfig)
    d_adam: AdamConfig = field(default_factory=AdamConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass(frozen=True)
class OutputConfig:
    """What a training writes; nothing here changes the weights."""

    summarize: bool = True          # TensorBoard events
    truncation_psi: float = 0.7     # of the sample grids
    keep_samples: bool = True       # all grids of samples and of their attention, or only the newest
    last_snapshots: int = 10        # snapshots to keep, -1 for all
    batch_gpu: int = 4              # images that one device takes at once for the sample grids
