"""TensorFlow on the devices that a command line asks for, with the ops that it chooses."""

from __future__ import annotations

import ops
from dnnlib import tflib


def open_devices(gpus, ops_choice="auto", together=None):
    """Open TensorFlow and choose the implementation of the ops; say which, and when there is no GPU.

    Args:
        gpus: comma list of GPU numbers, or cpu.
        ops_choice: see ops.set_implementation.
        together: tflib.Workers to compute with, or None.

    Returns:
        list of device strings.
    """
    devices = tflib.init_tf(gpus, together=together)
    if gpus != "cpu" and devices[0].startswith("/cpu"):
        print("no GPU: using CPU")
    print(ops.set_implementation(ops_choice), flush=True)
    return devices
