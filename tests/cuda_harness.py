"""Stand-ins without a GPU for what benchmarks.cuda_kernels uses on one: the .cu files compiled for the CPU through the host shim, the CPU
kernels behind the same interface, memory, and a driver."""

import ctypes
import functools
import os
import subprocess

from benchmarks.cuda_kernels import SOURCES, Kernels, build_folder, compile_kernels, compile_library

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=vptr", "-g")
NUMERIC_TYPES = """// All that the CPU kernels need of TensorFlow's header.
#include "host_half.h"
namespace Eigen {
struct half {
  __half value;
  half() = default;
  explicit half(float number) : value(__float2half_rn(number)) {}
  explicit operator float() const { return __half2float(value); }
};
}
"""
DRIVER = r"""// A driver whose one GPU is this machine's memory; CUDA_VISIBLE_DEVICES="" hides it, $CUDA_LOG gets a line for every cuInit.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef unsigned long long Pointer;
static int hidden() { const char* shown = getenv("CUDA_VISIBLE_DEVICES"); return shown && !*shown; }
static int memory_copy(void* to, const void* from, size_t size) { memcpy(to, from, size); return 0; }
extern "C" {
int cuInit(unsigned) {
  if (FILE* log = getenv("CUDA_LOG") ? fopen(getenv("CUDA_LOG"), "a") : nullptr) fputs("cuInit\n", log), fclose(log);
  return hidden() ? 100 : 0;
}
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGetCount(int* count) { *count = !hidden(); return 0; }
int cuDeviceGet(int* device, int index) { *device = 7; return index; }
int cuDeviceGetName(char* name, int size, int device) { snprintf(name, size, "GPU %d", device); return 0; }
int cuDeviceGetAttribute(int* value, int number, int device) { *value = number == 75 ? 9 : number == 38 ? 40000 : 0; return device != 7; }
int cuDevicePrimaryCtxRetain(void** context, int device) { *context = (void*)((size_t)device << 33); return 0; }
int cuCtxSetCurrent(void* context) { return context == (void*)((size_t)7 << 33) ? 0 : 201; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { *free = (size_t)5 << 30; *total = (size_t)9 << 30; return 0; }
int cuMemAlloc_v2(Pointer* pointer, size_t size) { *pointer = (Pointer)aligned_alloc(256, (size + 255) / 256 * 256); return 0; }
int cuMemFree_v2(Pointer pointer) { free((void*)pointer); return 0; }
int cuMemcpyHtoD_v2(Pointer to, const void* from, size_t size) { return memory_copy((void*)to, from, size); }
int cuMemcpyDtoH_v2(void* to, Pointer from, size_t size) { return memory_copy(to, (void*)from, size); }
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void* stream) {
  return stream ? 400 : memory_copy((void*)to, (void*)from, size);
}
int cuEventCreate(void** event, unsigned) { *event = malloc(sizeof(timespec)); return 0; }
int cuEventRecord(void* event, void* stream) { return clock_gettime(CLOCK_MONOTONIC, (timespec*)event) || stream ? 400 : 0; }
int cuEventQuery(void*) { return 600; }
int cuEventSynchronize(void*) { return 0; }
int cuEventElapsedTime(float* milliseconds, void* start, void* stop) {
  const timespec &from = *(timespec*)start, &to = *(timespec*)stop;
  *milliseconds = (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) * 1e-6;
  return 0;
}
}
"""


class HostMemory:
    """Blocks of exactly the requested size, watched by the address sanitizer and aligned like TensorFlow's."""

    def __init__(self):
        self._libc = ctypes.CDLL(None)
        self._libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
        self._libc.free.argtypes = [ctypes.c_void_p]

    def allocate(self, size):
        block = ctypes.c_void_p()
        if self._libc.posix_memalign(ctypes.byref(block), 64, max(size, 1)):
            raise MemoryError(f"{size} bytes")
        return block.value

    def upload(self, pointer, array):
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)

    def download(self, array, pointer):
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def copy(self, target, source, size):
        ctypes.memmove(target, source, size)

    def free(self, pointer):
        self._libc.free(pointer)


@functools.lru_cache(maxsize=None)
def shim_library(sanitize=False):
    """Compile the kernels for the CPU; returns the library's path. With `sanitize`, libasan must be preloaded."""
    flags = list(SANITIZE) if sanitize else []
    return compile_kernels(["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-fPIC", "-x", "c++"] + flags,
                           ["g++", "-shared"] + flags, f"shim_{'asan' if sanitize else 'plain'}")


@functools.lru_cache(maxsize=None)
def cpu_library(sanitize=False):
    """Compile the CPU kernels; returns the library's path. With `sanitize`, libasan must be preloaded.

    Results bypass the caches from 64 KB on, so that the test cases cover both sides.
    """
    folder = os.path.join(build_folder(), "tensorflow", "core", "framework")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "numeric_types.h"), "w", encoding="utf-8") as file:
        file.write(NUMERIC_TYPES)
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cpu_kernels.cc")
    command = ["g++", "-std=c++14", "-O1", "-march=native", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared"]
    command += ["-DGANFORMER_PAST_CACHE_BYTES=65536", f"-I{SOURCES}", f"-I{build_folder()}", source] + (list(SANITIZE) if sanitize else [])
    return compile_library(command, f"cpu_{'asan' if sanitize else 'plain'}.so")


@functools.lru_cache(maxsize=None)
def driver_stand_in():
    """Compile DRIVER; returns the path of its libcuda.so.1."""
    source = os.path.join(build_folder(), "driver.cc")
    with open(source, "w", encoding="utf-8") as file:
        file.write(DRIVER)
    return compile_library(["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-fPIC", "-shared", source], "libcuda.so.1")


def sanitizer_runtime(name):
    """Path of a sanitizer's library ("asan", "tsan"), or None if g++ has none."""
    path = subprocess.run(["g++", f"-print-file-name=lib{name}.so"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) else None


def shim_kernels():
    """The kernels on the CPU."""
    return Kernels(shim_library(), HostMemory())
