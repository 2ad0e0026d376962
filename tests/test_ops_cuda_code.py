"""The kernels' device code as nvcc makes it, and the arithmetic of their indices."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests import cuda_harness

needs_gxx = pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
QUOTIENTS = """
#include <random>
#include "bias_act.cu"
bool right(int64_t value, int64_t by) {
  const bool equal = ganformer::quotient(value, ganformer::make_divisor(by)) == value / by;
  if (!equal) printf("%lld / %lld\\n", (long long)value, (long long)by);
  return equal;
}
int main() {
  std::mt19937_64 random(0);
  const int64_t edges[] = {1, 2, 3, 5, 7, 64, 641, 65535, 65536, 65537, 1 << 30, 0x7ffffffe, 0x7fffffff, 1ll << 31, 1ll << 40};
  for (int64_t by : edges) {
    for (int i = 0; i < 200000; i++) {
      const int64_t near = by * (random() % ((1ll << 33) / by + 2)) + i % 3;
      const int64_t values[] = {near, near > 0 ? near - 1 : 0, int64_t(random() >> (random() % 40 + 1)), 0x7fffffff - i};
      for (int64_t value : values) {
        if (!right(value, by)) return 1;
      }
    }
  }
  for (int i = 0; i < 2000000; i++) {
    if (!right(random() >> 33, 1 + (random() >> (33 + random() % 31)))) return 1;
  }
}
"""


@needs_gxx
def test_division_by_a_known_number(tmp_path):
    """Multiples of divisors and their neighbours, random and extreme numbers, beyond 31 bits too."""
    source, program = tmp_path / "quotients.cc", tmp_path / "quotients"
    source.write_text(QUOTIENTS)
    subprocess.run(["g++", "-std=c++17", "-O1", f"-I{cuda_harness.SOURCES}", str(source), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("source", cuda_harness.KERNELS)
def test_kernels_of_vectors_move_them_as_one(tmp_path, source):
    """Every access to global memory of 16 bytes of x and y is one instruction; nothing lies in local memory."""
    nvcc = cuda_harness.cuda_tool("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    path = tmp_path / "code.ptx"
    command = [nvcc, "-O3", "-std=c++14", "-arch=compute_75", "--ptx", os.path.join(cuda_harness.SOURCES, source), "-o", str(path)]
    subprocess.run(command, check=True)
    entries = re.findall(r"\.entry (\w+)\((.*?)\n}", path.read_text(), flags=re.DOTALL)
    vectors = {name: body for name, body in entries if re.search(r"I(fLi4|6__halfLi8|N\w*bfloat16ELi8)E", name)}
    assert len(vectors) == (9 if source == "upfirdn2d.cu" else 24)
    for name, body in vectors.items():
        stores, loads = re.findall(r"st\.global\S*", body), re.findall(r"ld\.global\S*", body)
        assert stores and set(stores) == {"st.global.v4.u32"}, name
        assert np.any([".v4." in load for load in loads]), name
        assert ".local" not in body, name
