"""Small networks and an in-memory dataset for the training tests."""

import numpy as np

from dnnlib import tflib
from training.config import LossConfig, ScheduleConfig, TrainingConfig
from training.networks import DiscriminatorConfig, GeneratorConfig


class ArrayDataset:
    """The interface of training.dataset.Dataset over 64 random pictures of 8 x 8 pixels."""

    def __init__(self, classes=0, resolution=8, count=64):
        rng = np.random.RandomState(0)
        self.name, self.fingerprint = "array", "0123"
        self.label_names, self.label_kind = list(map(str, range(classes))), "one-hot" if classes else "none"
        self.count, self.resolution, self.channels, self.ratio = count, resolution, 3, 1.0
        self.shape = (3, resolution, resolution)
        self.labels = np.eye(classes, dtype=np.float32)[rng.randint(classes, size=count)] if classes else np.zeros([count, 0], np.float32)
        self._pictures = rng.randint(256, size=[count, *self.shape]).astype(np.uint8)

    def read(self, indices):
        return self._pictures[indices]

    def batches(self, batch_size, seed, position, shard=0, shards=1):
        assert (shard, shards) == (0, 1)
        while True:
            indices = [tflib.numpy_stream(seed, f"order/{position + i}").randint(self.count) for i in range(batch_size)]
            position += batch_size
            yield self._pictures[indices], self.labels[indices]


GANFORMER = {"transformer": True, "components_num": 2, "kmeans": True, "norm": "layer", "integration": "mul", "attention_dropout": 0.2,
             "component_dropout": 0.1}  # fmt: skip


def small_networks(seed=0, c_dim=0, generator=None):
    """G, D and Gs by name, for 8 x 8 pixels; `generator` has further options for G (without any it is a StyleGAN2)."""
    shared = {"resolution": 8, "channel_base": 32, "channel_max": 8, "c_dim": c_dim}
    options = {"z_dim": 8, "w_dim": 8, "mapping_num_layers": 2, "style_mixing": 0.9, **(generator or {})}
    G = tflib.Network("G", GeneratorConfig(**shared, **options), seed=seed)
    D = tflib.Network("D", DiscriminatorConfig(**shared), seed=seed)
    return {"G": G, "D": D, "Gs": G.clone("Gs")}


def small_training(batch_size=8, batch_gpu=4, total_kimg=0.08, tick_kimg=0.02, mirror=True, precision="fp32", **loss):
    """TrainingConfig of a few steps, with both regularizers running often."""
    loss = dict({"pathreg": True, "g_reg_interval": 2, "d_reg_interval": 3}, **loss)
    schedule = ScheduleConfig(batch_size=batch_size, batch_gpu=batch_gpu, total_kimg=total_kimg, tick_kimg=tick_kimg, ema_kimg=0.05)
    return TrainingConfig(seed=7, mirror_augment=mirror, precision=precision, loss=LossConfig(**loss), schedule=schedule)
