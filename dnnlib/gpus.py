"""What the NVIDIA driver says about the GPUs that this process may use."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import NamedTuple

CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


class Gpu(NamedTuple):
    """A visible GPU, as the driver describes it."""

    name: str
    capability: int            # 90 for 9.0


def driver():
    """The driver's library, or None if there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def driver_release():
    """The newest CUDA release that the driver supports, (12, 4) for 12.4, or None if there is no driver or it does not start."""
    library, version = driver(), ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def visible_gpus():
    """The GPUs that this process may use, subject to CUDA_VISIBLE_DEVICES: list of Gpu, empty without a driver."""
    library = driver()
    return [_describe(library, device) for device in _devices(library)]


def machine_gpus():
    """Number of GPUs in this machine, whatever CUDA_VISIBLE_DEVICES says.

    A child process asks the driver: the first call in a process fixes for good which GPUs it sees.
    """
    if driver() is None:
        return 0
    ask = "from dnnlib import gpus; print(len(gpus.visible_gpus()))"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return int(subprocess.run([sys.executable, "-c", ask], cwd=root, env=environment, stdout=subprocess.PIPE).stdout or 0)


def memory_used_gb():
    """Memory in use, by any process, on the fullest GPU that this process computes on, in GB (2^30 bytes).

    TensorFlow does not release memory, so for a process that has the GPU to itself this is the peak.

    Returns:
        float, or None if this process computes on no GPU.
    """
    library = driver()
    used = [_memory_used(library, device) for device in _devices(library) if _is_active(library, device)]
    return max(used) / 2**30 if used else None


def _devices(library):
    """Handles of the visible GPUs."""
    count = ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return []
    devices = [ctypes.c_int() for _ in range(count.value)]
    for index, device in enumerate(devices):
        library.cuDeviceGet(ctypes.byref(device), index)
    return devices


def _describe(library, device):
    major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(128)
    library.cuDeviceGetName(name, 128, device)
    library.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(), 10 * major.value + minor.value)


def _is_active(library, device):
    """Whether this process has a context on the GPU; querying the memory would create one."""
    flags, active = ctypes.c_uint(), ctypes.c_int()
    return not library.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active)) and bool(active.value)


def _memory_used(library, device):
    """Bytes in use on a GPU; 0 if the driver does not tell."""
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return 0
    try:
        library.cuCtxPushCurrent_v2(context)
        library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)
    return total.value - free.value
