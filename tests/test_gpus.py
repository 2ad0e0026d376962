"""What the driver reports about GPUs, with a stand-in for its library: two GPUs, the second one without a context of this process."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern "C" {
static size_t current;
static int contexts;
static int questions;
int asked() { return questions; }
int cuInit(unsigned) { const char* shown = getenv("CUDA_VISIBLE_DEVICES"); ++questions; return shown && *shown == '4' ? 100 : 0; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int index) { *device = 7 + index; return 0; }
int cuDeviceGetName(char* name, int size, int device) { snprintf(name, size, "GPU %d", device); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? 9 : device - 7; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) { *flags = 0; *active = device == ACTIVE; return 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { ++contexts; *context = (void*)((size_t)device << 33); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { --contexts; return 0; }
int cuCtxPushCurrent_v2(void* context) { current = (size_t)context; return 0; }
int cuCtxPopCurrent_v2(void** context) { *context = (void*)current; current = 0; return 0; }
int cuMemGetInfo_v2(size_t* free, size_t* total) {
    if (current != (size_t)7 << 33 || contexts != 1) return 201;
    *total = (size_t)80 << 30; *free = ((size_t)67 << 30) + ((size_t)1 << 29); return 0; }
}
"""
TICK = """
from dnnlib import gpus
from training.config import ScheduleConfig
from training.status import Status
print(gpus.visible_gpus())
status = Status(ScheduleConfig(), None, 0, 0.0, {})
print(status.tick(1, 8, {})["Resources/gpu_memory_gb"] if ACTIVE else status.tick(1, 8, {}).keys())
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Function (active: handle of the GPU that has a context) -> environment with the stand-in driver."""
    if not shutil.which("g++"):
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("driver")

    def build(active):
        place = folder / str(active)
        place.mkdir()
        source = place / "driver.cc"
        source.write_text(DRIVER)
        subprocess.run(["g++", "-shared", "-fPIC", f"-DACTIVE={active}", str(source), "-o", str(place / "libcuda.so.1")], check=True)
        return dict(os.environ, LD_LIBRARY_PATH=str(place))

    return build


def run(environment, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_the_status_line_shows_the_memory_of_the_gpus_in_use(machine):
    described, line, memory = run(machine(7), TICK.replace("ACTIVE", "True"))
    assert described == "[Gpu(name='GPU 7', capability=90), Gpu(name='GPU 8', capability=91)]"
    assert line.endswith(" + 12.50 GB") and float(memory) == 12.5


def test_no_context_is_made_to_ask(machine):
    _, line, names = run(machine(-1), TICK.replace("ACTIVE", "False"))
    assert line.endswith(" GB") and "+" not in line.split("memory")[1] and "gpu_memory" not in names


def test_without_a_driver():
    described, line, names = run(dict(os.environ), TICK.replace("ACTIVE", "False"))
    assert described == "[]" or "Gpu(" in described
    assert "+" not in line.split("memory")[1] and "gpu_memory" not in names


def test_all_gpus_of_the_machine_are_counted_without_a_question_to_the_driver_in_this_process(machine):
    """The first question would fix which of them the process sees."""
    code = """
import ctypes, os
os.environ["CUDA_VISIBLE_DEVICES"] = "4"
from dnnlib import gpus
print(gpus.machine_gpus(), ctypes.CDLL("libcuda.so.1").asked())
"""
    assert run(machine(0), code) == ["2 0"]
    assert run(dict(os.environ), "from dnnlib import gpus; gpus.driver = lambda: None; print(gpus.machine_gpus())") == ["0"]
