// The CPU kernels behind the launchers' interface, for tests.cuda_harness.
#include "cpu_bias_act.h"
#include "cpu_upfirdn2d_kernels.h"

namespace ganformer {
namespace {

template <typename Op>
void run_in_two_parts(const Op& op, int64_t tasks) {
  op.run(0, tasks / 2);
  op.run(tasks / 2, tasks);
}

template <typename T>
int bias_act(const GanformerBiasAct& args) {
  const CpuBiasAct<T> op(args);
  run_in_two_parts(op, op.tasks());
  return 0;
}

template <typename T>
int upfirdn2d(const GanformerUpfirdn2d& args) {
  with_cpu_upfirdn2d<T>(args, [](const auto& op) { run_in_two_parts(op, op.tasks()); });
  return 0;
}

}  // namespace
}  // namespace ganformer

extern "C" {

int ganformer_bias_act(const GanformerBiasAct* args, void*) {
  if (args->samples * args->channels * args->pixels == 0) return 0;  // as the op does
  switch (args->type) {
    case GANFORMER_FLOAT32: return ganformer::bias_act<float>(*args);
    case GANFORMER_FLOAT16: return ganformer::bias_act<Eigen::half>(*args);
    default: return ganformer::bias_act<ganformer::bfloat16>(*args);
  }
}

int ganformer_upfirdn2d(const GanformerUpfirdn2d* args, void*) {
  if (args->samples * args->channels * args->out_h * args->out_w == 0) return 0;
  switch (args->type) {
    case GANFORMER_FLOAT32: return ganformer::upfirdn2d<float>(*args);
    case GANFORMER_FLOAT16: return ganformer::upfirdn2d<Eigen::half>(*args);
    default: return ganformer::upfirdn2d<ganformer::bfloat16>(*args);
  }
}

int64_t ganformer_upfirdn2d_workspace(const GanformerUpfirdn2d*) { return 0; }
}
