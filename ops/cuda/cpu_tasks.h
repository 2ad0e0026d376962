// CPU work divided into tasks, shared between the calling thread and the threads of a pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

namespace ganformer {

const int64_t kElementsAtOnce = 1 << 14;  // takes a few microseconds, many times longer than fetching the next tasks

// The tasks of op, whose run(first, last) may be called by several threads at once. Threads fetch tasks when they are ready: the caller
// begins at once, while a pool thread that has to be woken first, which takes as long as a whole small op, finds little or nothing left.
template <typename Op>
class TaskQueue {
 public:
  TaskQueue(const Op& op, int64_t tasks, int64_t at_once) : op_(op), tasks_(tasks), at_once_(at_once), next_(0), left_(tasks) {}

  bool has_tasks() const { return next_.load() < tasks_; }

  // Runs tasks until all are taken. Op must outlive wait(), the queue must outlive the last work().
  void work() {
    for (int64_t first = next_.fetch_add(at_once_); first < tasks_; first = next_.fetch_add(at_once_)) {
      const int64_t last = std::min(first + at_once_, tasks_);
      op_.run(first, last);
      if (left_.fetch_sub(last - first) == last - first) {
        std::lock_guard<std::mutex> lock(mutex_);
        finished_.notify_all();
      }
    }
  }

  // Returns when all tasks are done. Yields first: the tasks still running usually take less time than sleeping and waking up.
  void wait() {
    for (int i = 0; i < kYields && left_.load() > 0; i++) std::this_thread::yield();
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return left_.load() == 0; });
  }

 private:
  static const int kYields = 200;

  const Op& op_;
  const int64_t tasks_, at_once_;
  std::atomic<int64_t> next_, left_;
  std::mutex mutex_;
  std::condition_variable finished_;
};

// Has a pool thread work on the queue; before it begins, that thread calls the next helper.
template <typename Op, typename Schedule>
void call_helper(const std::shared_ptr<TaskQueue<Op>>& queue, int64_t helpers, const Schedule& schedule) {
  if (helpers == 0 || !queue->has_tasks()) return;
  schedule([queue, helpers, schedule] {
    call_helper(queue, helpers - 1, schedule);
    queue->work();
  });
}

// Runs op over all tasks on up to `threads` threads including the caller. schedule(function) has a pool thread call the function; copies
// of `schedule` outlive this call. An exception would destroy op while other threads use it, so it ends the process.
template <typename Op, typename Schedule>
void run_tasks(const Op& op, int64_t tasks, int64_t task_elements, int threads, const Schedule& schedule) noexcept {
  const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(1, task_elements));
  const int64_t helpers = std::min<int64_t>(threads, (tasks + at_once - 1) / at_once) - 1;
  if (helpers <= 0) return op.run(0, tasks);
  const auto queue = std::make_shared<TaskQueue<Op>>(op, tasks, at_once);
  call_helper(queue, helpers, schedule);
  queue->work();
  queue->wait();
}

}  // namespace ganformer
