"""How the compiled CPU kernels share their work: ops/cuda/cpu_tasks.h with its own threads, under the thread sanitizer."""

import shutil
import subprocess

import pytest

from benchmarks import cuda_kernels
from tests import cuda_harness
from tests.conftest import on_one_stack

PROGRAM = r"""
#include <chrono>
#include <cstdio>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>
#include "cpu_tasks.h"

void sleep_ms(int time) { std::this_thread::sleep_for(std::chrono::milliseconds(time)); }

struct Counting {
  std::vector<int>* runs;
  int64_t slow;  // the task that takes longer than the others together, -1 for none, -2 for all
  void run(int64_t first, int64_t last) const {
    for (int64_t task = first; task < last; task++) {
      if (task == slow || slow == -2) sleep_ms(slow == -2 ? 2 : 20);
      (*runs)[task]++;
    }
  }
};

// Has a thread of its own for each call; every other one comes late.
class Pool {
 public:
  void call(int delay, std::function<void()> work) {
    std::lock_guard<std::mutex> lock(mutex_);
    const int wait = threads_.size() % 2 ? delay : 0;
    threads_.emplace_back([work, wait] {
      sleep_ms(wait);
      work();
    });
  }
  size_t size() {
    std::lock_guard<std::mutex> lock(mutex_);
    return threads_.size();
  }
  void join() {  // a thread may call another one until it ends
    for (size_t i = 0; i < size(); i++) thread(i).join();
  }

 private:
  std::thread& thread(size_t index) {
    std::lock_guard<std::mutex> lock(mutex_);
    return threads_[index];
  }
  std::mutex mutex_;
  std::deque<std::thread> threads_;
};

// delay in ms: late threads come when the others have begun or are done, or find the slow task under way
bool right(int threads, int tasks, int64_t task_elements, int64_t slow, int delay) {
  Pool pool;
  std::vector<int> runs(tasks);
  {
    const Counting op = {&runs, slow};
    Pool* const called = &pool;
    ganformer::run_tasks(op, tasks, task_elements, threads, [called, delay](std::function<void()> work) { called->call(delay, work); });
  }
  for (int times : runs) {
    if (times != 1) return printf("%d threads, %d tasks: one ran %d times\n", threads, tasks, times), false;
  }
  pool.join();
  const int used = int(pool.size()) + 1;
  if (used > threads || (slow == -2 && used < threads)) return printf("%d tasks: %d of %d threads\n", tasks, used, threads), false;
  return true;
}

int main() {
  const int64_t large = ganformer::kElementsAtOnce;
  bool all = right(5, 50, large, -2, 0);
  for (int threads : {1, 2, 5}) {
    for (int tasks : {0, 1, 2, 7, 1000}) {
      for (int64_t elements : {int64_t(0), int64_t(1), large / 4, large * 3}) {
        for (int delay : {0, 5, 40}) all = all && right(threads, tasks, elements, delay ? tasks / 2 : -1, delay);
      }
    }
  }
  return all ? 0 : 1;
}
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
@on_one_stack
def test_every_task_runs_once(tmp_path):
    """Whether the threads come at once, late, or when everything is done: every task runs once, before run_tasks returns."""
    if cuda_harness.sanitizer_runtime("tsan") is None:
        pytest.skip("g++ has no thread sanitizer here")
    source, program = tmp_path / "tasks.cc", tmp_path / "tasks"
    source.write_text(PROGRAM)
    subprocess.run(["g++", "-std=c++14", "-O1", "-g", "-fsanitize=thread", "-pthread", f"-I{cuda_kernels.SOURCES}", str(source), "-o",
                    str(program)], check=True)
    done = subprocess.run([str(program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
