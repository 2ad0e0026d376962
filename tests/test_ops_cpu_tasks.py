"""How the compiled CPU kernels share their work out: ops/cuda/cpu_tasks.h with threads of its own, under the thread sanitizer."""

import shutil
import subprocess

import pytest

from tests import cuda_harness

PROGRAM = r"""
#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>
#include "cpu_tasks.h"

struct Counting {
  std::vector<int>* runs;
  int64_t slow;  // the task that takes longer than the others together
  void run(int64_t first, int64_t last) const {
    for (int64_t task = first; task < last; task++) {
      if (task == slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      (*runs)[task]++;
    }
  }
};

// delay in ms, for every other thread: it comes when the others have begun or are done, or finds the slow task under way
bool right(int threads, int tasks, int64_t task_elements, int delay, std::vector<std::thread>* pool) {
  const size_t before = pool->size();
  std::vector<int> runs(tasks);
  {
    const Counting op = {&runs, delay ? tasks / 2 : -1};
    ganformer::run_tasks(op, tasks, task_elements, threads, [=](std::function<void()> work) {
      const int wait = pool->size() % 2 ? delay : 0;
      pool->emplace_back([work, wait] {
        std::this_thread::sleep_for(std::chrono::milliseconds(wait));
        work();
      });
    });
  }
  const int used = int(pool->size() - before) + 1;
  const bool large = tasks >= threads && task_elements > ganformer::kElementsAtOnce;
  if (large ? used != threads : used > threads) return printf("%d tasks: %d of %d threads used\n", tasks, used, threads), false;
  for (int times : runs) {
    if (times != 1) return printf("%d threads, %d tasks: one ran %d times\n", threads, tasks, times), false;
  }
  return true;
}

int main() {
  std::vector<std::thread> pool;
  bool all = true;
  for (int threads : {1, 2, 5}) {
    for (int tasks : {0, 1, 2, 7, 1000}) {
      for (int64_t elements : {int64_t(0), int64_t(1), ganformer::kElementsAtOnce / 4, ganformer::kElementsAtOnce * 3}) {
        for (int delay : {0, 5, 40}) all = all && right(threads, tasks, elements, delay, &pool);
      }
    }
  }
  for (std::thread& thread : pool) thread.join();
  return all ? 0 : 1;
}
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_every_task_runs_once(tmp_path):
    """With threads that come at once, late, or when all is done: every task runs once, before run_tasks returns."""
    if cuda_harness.sanitizer_runtime("tsan") is None:
        pytest.skip("g++ has no thread sanitizer here")
    source, program = tmp_path / "tasks.cc", tmp_path / "tasks"
    source.write_text(PROGRAM)
    subprocess.run(["g++", "-std=c++14", "-O1", "-g", "-fsanitize=thread", "-pthread", f"-I{cuda_harness.SOURCES}", str(source), "-o",
                    str(program)], check=True)
    done = subprocess.run([str(program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
