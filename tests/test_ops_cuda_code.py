"""The kernels' device code as nvcc makes it, and the arithmetic of their indices."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from benchmarks import cuda_kernels

needs_gxx = pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
QUOTIENTS = """
#include <random>
#include "bias_act.cu"
bool right(uint32_t value, int64_t by) {
  const bool equal = ganformer::quotient(value, ganformer::make_divisor(by)) == value / by;
  if (!equal) printf("%u / %lld\\n", value, (long long)by);
  return equal;
}
int main() {
  std::mt19937_64 random(0);
  const int64_t edges[] = {1, 2, 3, 5, 7, 64, 641, 65535, 65536, 65537, 1 << 30, 0x7ffffffe, 0x7fffffff, 1ll << 31};
  for (int64_t by : edges) {
    for (int i = 0; i < 200000; i++) {
      const int64_t near = by * (random() % ((1ll << 31) / by + 1)) + i % 3;
      const int64_t values[] = {near, near > 0 ? near - 1 : 0, int64_t(random() >> (random() % 31 + 33)), 0x7fffffff - i};
      for (int64_t value : values) {
        if (value < (1ll << 31) && !right(value, by)) return 1;
      }
    }
  }
  for (int i = 0; i < 2000000; i++) {
    if (!right(random() >> 33, 1 + (random() >> (33 + random() % 31)))) return 1;
  }
}
"""
WORDS = {  # bytes: the instructions that store and load them as one
    4: ("st.global.v2.u16", "ld.global.nc.u32"),
    8: ("st.global.v2.u32", "ld.global.nc.v2.u32"),
    16: ("st.global.v4.u32", "ld.global.nc.v4.u32"),
}
STRIPS = """
#include <random>
#include <stdio.h>
#include "upfirdn2d_walk.cuh"
int64_t time_of(int64_t strip, int64_t blocks, int64_t steps, int64_t beginning, int64_t resident) {
  int64_t all = 0;
  for (int64_t at = 0; at < steps; at += strip) all += blocks;
  return (all + resident - 1) / resident * (strip + beginning);
}
int main() {
  std::mt19937_64 random(0);
  for (int i = 0; i < 20000; i++) {
    const int64_t blocks = 1 + (random() >> (random() % 24 + 40)), steps = 1 + random() % 200;
    const int64_t beginning = 1 + random() % 8, resident = 1 + random() % 1000;
    const int64_t chosen = ganformer::strip_steps_for(blocks, steps, beginning, resident);
    bool right = 1 <= chosen && chosen <= steps;
    for (int64_t strip = (steps + 63) / 64; right && strip <= steps; strip++) {
      right = time_of(chosen, blocks, steps, beginning, resident) <= time_of(strip, blocks, steps, beginning, resident);
    }
    if (!right) return printf("%ld blocks, %ld steps: %ld\\n", blocks, steps, chosen), 1;
  }
  return ganformer::strip_steps_for(1, 1ll << 28, 8, 1000) != (1 << 28) / 64;
}
"""


def run_program(tmp_path, code):
    """Compile and run a program that includes parts of ops/cuda; it must print nothing and end with 0."""
    source, program = tmp_path / "program.cc", tmp_path / "program"
    source.write_text(code)
    subprocess.run(["g++", "-std=c++17", "-O1", f"-I{cuda_kernels.SOURCES}", str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@needs_gxx
def test_division_by_a_known_number(tmp_path):
    """Multiples of divisors and their neighbours, random and extreme numbers."""
    run_program(tmp_path, QUOTIENTS)


@needs_gxx
def test_strips_end_as_soon_as_they_can(tmp_path):
    """By the same count of waves, no other length of a strip does better; columns of any length are divided quickly."""
    run_program(tmp_path, STRIPS)


def kernels_of(source, tmp_path):
    """The PTX of every kernel of a .cu file by its mangled name."""
    nvcc = cuda_kernels.cuda_tool("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    path = tmp_path / "code.ptx"
    command = [nvcc, "-O3", "-std=c++14", "-arch=compute_75", "--ptx", os.path.join(cuda_kernels.SOURCES, source), "-o", str(path)]
    subprocess.run(command, check=True)
    return dict(re.findall(r"\.entry (\w+)\((.*?)\n}", path.read_text(), flags=re.DOTALL))


@pytest.mark.slow
@pytest.mark.parametrize("source", cuda_kernels.KERNELS)
def test_kernels_of_vectors_move_them_as_one(tmp_path, source):
    """Every access to global memory of 16 bytes of x and y is one instruction, and so is every one of the lanes of planes that hold
    whole words; nothing lies in local memory."""
    kernels = kernels_of(source, tmp_path)
    vectors = {name: body for name, body in kernels.items() if re.search(r"I(fLi4|6__halfLi8|N\w*bfloat16ELi8)E", name)}
    assert len(vectors) == (9 if source == "upfirdn2d.cu" else 24)
    for name, body in vectors.items():
        stores, loads = re.findall(r"st\.global\S*", body), re.findall(r"ld\.global\S*", body)
        assert stores and set(stores) == {"st.global.v4.u32"}, name
        assert np.any([".v4." in load for load in loads]), name
        assert ".local" not in body, name
    planes = {name: body for name, body in kernels.items() if "planes_kernel" in name}
    assert len(planes) == (15 if source == "upfirdn2d.cu" else 0)
    for name, body in planes.items():
        assert ".local" not in body, name
        if "Lb1" in name:
            up, bytes_of_four = "Li0ELb1" in name, 16 if "IfLi" in name else 8
            assert set(re.findall(r"st\.global\S*", body)) == {WORDS[bytes_of_four if up else bytes_of_four // 2][0]}, name
            assert WORDS[bytes_of_four // 2 if up else bytes_of_four][1] in re.findall(r"ld\.global\S*", body), name
