"""The kernels without TensorFlow, compiled by nvcc for a GPU and called through ctypes. Used by benchmarks.ops_gpu and the tests; needs
only NumPy."""

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile

import numpy as np

from dnnlib import gpus, toolchain

SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "ops", "cuda")
KERNELS = tuple(sorted(name for name in os.listdir(SOURCES) if name.endswith(".cu")))
ACTIVATIONS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
TYPES = ("float32", "float16", "bfloat16")

_pointer, _long, _int, _float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


class BiasAct(ctypes.Structure):
    """GanformerBiasAct in launchers.h."""

    _fields_ = [(name, _pointer) for name in ("x", "scale", "residual", "noise", "bias", "ref", "y")] + \
               [(name, _long) for name in ("samples", "channels", "pixels", "noise_samples")] + \
               [(name, _int) for name in ("channels_last", "type", "act", "order")] + \
               [(name, _float) for name in ("alpha", "gain", "clamp")]


class Upfirdn2d(ctypes.Structure):
    """GanformerUpfirdn2d in launchers.h."""

    _fields_ = [(name, _pointer) for name in ("x", "fy", "fx", "y", "workspace")] + \
               [(name, _long) for name in ("samples", "channels", "in_h", "in_w", "out_h", "out_w")] + \
               [(name, _int) for name in ("taps_y", "taps_x", "up_y", "up_x", "down_y", "down_x", "pad_y0", "pad_x0",
                                          "flip", "channels_last", "type")]


def bias_act_args(samples, pixels, channels, act="linear", order=0, channels_last=True, dtype="float32", gain=1.0, clamp=-1.0, alpha=0.2,
                  noise_samples=1):
    """A BiasAct without its pointers."""
    return BiasAct(samples=samples, channels=channels, pixels=pixels, noise_samples=noise_samples, channels_last=channels_last,
                   type=TYPES.index(dtype), act=ACTIVATIONS.index(act), order=order, alpha=alpha, gain=gain, clamp=clamp)


def upfirdn2d_args(shape, taps, up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0), flip=False, channels_last=True, dtype="float32"):
    """An Upfirdn2d without its pointers: shape [N, H, W, C] in either layout, taps (y, x), up and down (x, y), pad (x0, x1, y0, y1)."""
    samples, in_h, in_w, channels = shape
    out_h = (in_h * up[1] + pad[2] + pad[3] - taps[0]) // down[1] + 1
    out_w = (in_w * up[0] + pad[0] + pad[1] - taps[1]) // down[0] + 1
    return Upfirdn2d(samples=samples, channels=channels, in_h=in_h, in_w=in_w, out_h=out_h, out_w=out_w, taps_y=taps[0], taps_x=taps[1],
                     up_y=up[1], up_x=up[0], down_y=down[1], down_x=down[0], pad_y0=pad[2], pad_x0=pad[0], flip=flip,
                     channels_last=channels_last, type=TYPES.index(dtype))


def encode(values, dtype):
    """float64 values as the bytes of `dtype`, bfloat16 as uint16."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, dtype)
    with np.errstate(invalid="ignore"):
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)


def decode(stored, dtype):
    """The inverse of `encode`, as float64."""
    if dtype == "bfloat16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(invalid="ignore"):  # arbitrary bit patterns include signalling NaNs
        return stored.astype(np.float64)


class DeviceMemory:
    """The first GPU's memory, accessed through the driver alone. Copies wait for the kernels and report their errors."""

    def __init__(self):
        self._driver = gpus.driver()
        self._device, context = _int(), _pointer()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(self._device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments, accepted=(0,)):
        """Call a driver function; returns its code. RuntimeError if the code is not accepted."""
        code = getattr(self._driver, name)(*arguments)
        if code not in accepted:
            raise RuntimeError(f"{name}: CUDA driver error {code}")
        return code

    def attribute(self, number):
        """The value of a CUdevice_attribute."""
        value = _int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def available(self):
        """Free memory in bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, size):
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer.value

    def upload(self, pointer, array):
        if array.nbytes:
            self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer), _pointer(array.ctypes.data), ctypes.c_size_t(array.nbytes))

    def download(self, array, pointer):
        if array.nbytes:
            self.call("cuMemcpyDtoH_v2", _pointer(array.ctypes.data), ctypes.c_uint64(pointer), ctypes.c_size_t(array.nbytes))

    def copy(self, target, source, size):
        self.call("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size), None)

    def free(self, pointer):
        self.call("cuMemFree_v2", ctypes.c_uint64(pointer))


def fill(memory, pointer, size, array):
    """Fill `size` bytes by repeating the bytes of an array: uploaded once, then copied within the GPU's memory."""
    done = min(array.nbytes, size)
    memory.upload(pointer, array.view(np.uint8)[:done])
    while done < size:
        part = min(done, size - done)
        memory.copy(pointer + done, pointer, part)
        done += part


class Kernels:
    """The launchers of a shared library, callable with structs of pointers or with NumPy arrays."""

    def __init__(self, path, memory):
        library = ctypes.CDLL(path)
        library.ganformer_upfirdn2d_workspace.restype = _long
        self._library = library
        self._launchers = {BiasAct: library.ganformer_bias_act, Upfirdn2d: library.ganformer_upfirdn2d}
        self._memory = memory

    def workspace(self, args):
        """Bytes of workspace that the call described by a struct needs; depends on whether `fx` is null."""
        return self._library.ganformer_upfirdn2d_workspace(ctypes.byref(args)) if isinstance(args, Upfirdn2d) else 0

    def launch(self, args):
        """Launch the call described by a struct on the default stream. RuntimeError if the launcher refuses it."""
        code = self._launchers[type(args)](ctypes.byref(args), None)
        if code:
            raise RuntimeError(f"launcher returned CUDA error {code}")

    def bias_act(self, x, act="linear", order=0, channels_last=True, dtype="float32", gain=1.0, clamp=-1.0, alpha=0.2, misaligned=False,
                 in_place=False, **terms):
        """x [N, pixels, C] or [N, C, pixels] float64; terms: scale [N, C], residual, noise [N or 1, pixels], bias [C], ref.

        in_place: the result overwrites x, as TensorFlow allows if nothing else needs x.
        """
        sizes = x.shape if channels_last else (x.shape[0], x.shape[2], x.shape[1])
        noise_samples = len(terms["noise"]) if terms.get("noise") is not None else 1
        args = bias_act_args(*sizes, act, order, channels_last, dtype, gain, clamp, alpha, noise_samples)
        inputs = dict(terms, x=x)
        return self._call(args, {name: encode(value, dtype) for name, value in inputs.items()}, x.shape, dtype, misaligned, in_place)

    def upfirdn2d(self, x, fy, fx=None, up=(1, 1), down=(1, 1), pad=(0, 0, 0, 0), flip=False, channels_last=True, dtype="float32",
                  misaligned=False):
        """x [N, H, W, C] or [N, C, H, W] float64; fy [taps] with fx [taps], or fy [taps_y, taps_x]; up (x, y), pad (x0, x1, y0, y1)."""
        taps = fy.shape if fx is None else (len(fy), len(fx))
        args = upfirdn2d_args(x.shape if channels_last else np.moveaxis(x, 1, 3).shape, taps, up, down, pad, flip, channels_last, dtype)
        inputs = {"x": encode(x, dtype), "fy": encode(fy, "float32")}
        if fx is not None:
            inputs["fx"] = encode(fx, "float32")
            args.fx = 1  # not null: the size of the workspace depends on whether the filter is separable
        n, h, w, c = args.samples, args.out_h, args.out_w, args.channels
        shape = (n, h, w, c) if channels_last else (n, c, h, w)
        return self._call(args, inputs, shape, dtype, misaligned)

    def _call(self, args, inputs, shape, dtype, misaligned, in_place=False):
        """Upload the inputs, launch, download. Results start as NaN, so that elements the kernel fails to write are noticed."""
        out = np.full(shape, 0x7FC0 if dtype == "bfloat16" else np.nan, np.uint16 if dtype == "bfloat16" else dtype)
        offset = out.itemsize if misaligned else 0
        workspace, blocks = self.workspace(args), []

        def place(name, size, array=None):
            shift = offset if name in ("x", "y") else 0
            blocks.append(self._memory.allocate(size + shift))
            if array is not None:
                self._memory.upload(blocks[-1] + shift, array)
            setattr(args, name, blocks[-1] + shift)
            return blocks[-1] + shift

        try:
            for name, array in inputs.items():
                place(name, array.nbytes, array)
            if in_place:
                args.y = args.x
            else:
                place("y", out.nbytes, out)
            if workspace:
                place("workspace", workspace)
            self.launch(args)
            self._memory.download(out, args.y)
        finally:
            for block in blocks:
                self._memory.free(block)
        return decode(out, dtype)


@functools.lru_cache(maxsize=None)
def build_folder():
    """The folder for everything this process compiles."""
    folder = tempfile.mkdtemp(prefix="ganformer_kernels_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def compile_library(command, library):
    """Run a compiler command that builds the shared library of this name; returns its path."""
    path = os.path.join(build_folder(), library)
    subprocess.run(command + ["-o", path], check=True, cwd=SOURCES)
    return path


def compile_kernels(compile_one, link, kind):
    """Compile every .cu file with the command `compile_one`, in parallel, then link `kind`.so with the command `link`."""
    compilers = {}
    for kernel in KERNELS:
        target = os.path.join(build_folder(), f"{kernel}.{kind}.o")
        compilers[target] = subprocess.Popen(compile_one + ["-c", kernel, "-o", target], cwd=SOURCES)
    codes = [compiler.wait() for compiler in compilers.values()]
    assert not any(codes), codes
    return compile_library(link + list(compilers), f"{kind}.so")


def find_nvcc(capability):
    """The toolchain.Nvcc for GPUs of a compute capability (90 for 9.0), found as for TensorFlow's library.

    Raises:
        BuildError: there is none.
    """
    return toolchain.find_nvcc(toolchain.find_host_compiler(), [capability])


@functools.lru_cache(maxsize=None)
def device_library(capability):
    """Compile the kernels for GPUs of a compute capability with `find_nvcc`; returns the library's path."""
    nvcc = find_nvcc(capability).command
    return compile_kernels([*nvcc, *toolchain.NVCC_FLAGS, f"-arch=sm_{capability}"], [*nvcc, "-shared"], f"device_{capability}")
