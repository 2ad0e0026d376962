"""TensorFlow on the devices and with the ops that a command line asks for."""

from __future__ import annotations

import os

import ops
from dnnlib import tflib


def open_devices(gpus, ops_choice="auto", together=None):
    """Initialise TensorFlow and choose the implementation of the ops; print which one, and if there is no GPU.

    Args:
        gpus: comma-separated list of GPU numbers, or cpu.
        ops_choice: see ops.set_implementation.
        together: tflib.Workers to train with, or None.

    Returns:
        list of device strings.
    """
    devices = tflib.init_tf(gpus, together=together)
    if gpus != "cpu" and devices[0].startswith("/cpu"):
        hidden = "" if os.environ["CUDA_VISIBLE_DEVICES"] else " (CUDA_VISIBLE_DEVICES is empty)"  # as an earlier `--gpus cpu` leaves it
        print(f"no GPU{hidden}: using CPU")
    print(ops.set_implementation(ops_choice), flush=True)
    return devices
