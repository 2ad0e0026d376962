"""What happens when: rounds, ticks, snapshots, the moving average's weight."""

from __future__ import annotations

from dnnlib import UsageError

MBSTD_GROUP_SIZE = 4  # images in a group of StyleGAN2's minibatch standard deviation; --batch-gpu is a multiple of it, or less


def automatic_tick_kimg(total_kimg, batch_size):
    """Default tick length (kimg): 8, or in short runs a ninth of the run, which gives three snapshots; at least 8 steps."""
    return min(8.0, max(total_kimg / 9, 8 * batch_size / 1000))


def rounds_per_step(batch_size, batch_gpu, devices):
    """Rounds of gradient accumulation in one step.

    Raises:
        UsageError: the batch size is not a multiple of what the devices take in one round.
    """
    if batch_size % (batch_gpu * devices):
        raise UsageError(f"--batch-size {batch_size}: expected a multiple of --batch-gpu {batch_gpu} x {devices} device(s)")
    return batch_size // (batch_gpu * devices)


def steps_of(kimg, batch_size):
    """Number of steps that show `kimg` thousand images, rounded up."""
    return -int(-kimg * 1000 // batch_size)


def moving_average_beta(batch_size, ema_kimg, warmup_step=None):
    """Weight of the old value in each update of Gs, so that half of it is left after `ema_kimg` thousand images.

    Args:
        batch_size: images a step.
        ema_kimg: half-life.
        warmup_step: step t (from 0) of a warm-up, which limits the weight to (1 + t) / (10 + t): with a long half-life, Gs would
            otherwise stay close to the random initial weights. None for no warm-up.
    """
    beta = 0.5 ** (batch_size / (ema_kimg * 1000))
    return beta if warmup_step is None else min(beta, (1 + warmup_step) / (10 + warmup_step))


def tick_of(images, tick_kimg):
    """Number of whole ticks after this many images. Ticks are at fixed image counts, so a resumed run has the same ones."""
    return int(images / (tick_kimg * 1000) + 1e-9)


def snapshots_left(images, config):
    """Number of snapshots still to come when a tick ends: this tick's own, later ones, and the one at the end.

    Args:
        images: number shown so far.
        config: ScheduleConfig.
    """
    tick, last = (tick_of(shown, config.tick_kimg) for shown in (images, config.total_kimg * 1000))
    regular = last // config.snapshot_ticks - (tick - 1) // config.snapshot_ticks
    return regular + (last % config.snapshot_ticks > 0)
