"""A small training run for testing the memory estimate: python -m tests.memory_run IMAGES prints its peak resident memory in GB."""

import sys

import numpy as np

from dnnlib import tflib
from tests.training_standins import small_training
from training.networks import DiscriminatorConfig, GeneratorConfig
from training.status import peak_memory_gb
from training.step import Batch, TrainingStep

SIZE = {"resolution": 32, "channel_base": 1024, "channel_max": 64}
NETWORKS = GeneratorConfig(**SIZE, z_dim=32, w_dim=32, mapping_num_layers=2), DiscriminatorConfig(**SIZE)


def training_of(images):
    return small_training(batch_size=images, batch_gpu=images)


def main(images):
    tflib.init_tf("cpu")
    G, D = (tflib.Network(name, config) for name, config in zip("GD", NETWORKS))
    step = TrainingStep(G, D, G.clone("Gs"), training_of(images), np.zeros([1, 0], np.float32), ["/cpu:0"])
    reals = np.random.RandomState(0).randint(256, size=[images, 3, 32, 32]).astype(np.uint8)
    for _ in range(2):
        step.run(Batch(0, reals, np.zeros([images, 0], np.float32)), 0)
    print(peak_memory_gb())


if __name__ == "__main__":
    main(int(sys.argv[1]))
