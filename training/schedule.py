"""What happens when: rounds, ticks, snapshots, the moving average's weight."""

from __future__ import annotations

from dnnlib import UsageError

MBSTD_GROUP_SIZE = 4  # images in a group of StyleGAN2's minibatch standard deviation; --batch-gpu is a multiple of it, or less


def automatic_tick_kimg(total_kimg, batch_size):
    """Tick length (kimg) where none is given: 8, or a ninth of a short run, so that it too has three snapshots; at least 8 steps."""
    return min(8.0, max(total_kimg / 9, 8 * batch_size / 1000))


def rounds_per_step(batch_size, batch_gpu, devices):
    """Gradient accumulation: rounds in one step.

    Raises:
        UsageError: the batch does not divide into whole rounds.
    """
    if batch_size % (batch_gpu * devices):
        raise UsageError(f"--batch-size {batch_size}: expected a multiple of --batch-gpu {batch_gpu} x {devices} device(s)")
    return batch_size // (batch_gpu * devices)


def steps_of(kimg, batch_size):
    """Number of steps (at least 1 for more than 0 kimg) that show `kimg` thousand images."""
    return -int(-kimg * 1000 // batch_size)


def moving_average_beta(batch_size, ema_kimg, warmup_step=None):
    """Weight of the old value in Gs at each step: half of it is left after `ema_kimg` thousand images.

    Args:
        batch_size: images a step.
        ema_kimg: half-life.
        warmup_step: step t (from 0) of a warm-up, in which the weight is at most (1 + t) / (10 + t): a long half-life would
            keep the random first weights. None for no warm-up.
    """
    beta = 0.5 ** (batch_size / (ema_kimg * 1000))
    return beta if warmup_step is None else min(beta, (1 + warmup_step) / (10 + warmup_step))


def tick_of(images, tick_kimg):
    """Number of whole ticks after this many images. Ticks lie at fixed image counts, so a resumed run has the same ones."""
    return int(images / (tick_kimg * 1000) + 1e-9)


def snapshots_left(images, config):
    """Snapshots that a training has still to make when a tick ends: this tick's own, the later ones, and that at the end.

    Args:
        images: shown so far.
        config: ScheduleConfig.
    """
    tick, last = (tick_of(shown, config.tick_kimg) for shown in (images, config.total_kimg * 1000))
    regular = last // config.snapshot_ticks - (tick - 1) // config.snapshot_ticks
    return regular + (last % config.snapshot_ticks > 0)
