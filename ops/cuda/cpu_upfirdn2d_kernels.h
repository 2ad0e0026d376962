// Chooses the CPU kernel of upfirdn2d for a call.
#pragma once

#include <type_traits>

#include "cpu_upfirdn2d.h"
#include "cpu_upfirdn2d_channels_last.h"
#include "cpu_upfirdn2d_four_taps.h"

namespace ganformer {

// Calls runner with the kernel, an object that has tasks(), task_elements() and run(first, last).
template <typename T, typename Runner>
void with_cpu_upfirdn2d(const GanformerUpfirdn2d& args, const Runner& runner) {
  const FirProblem problem = make_problem(args);
  if (std::is_same<T, float>::value && takes_cpu_four_taps(problem)) {
    with_variant(problem, [&](auto variant) { runner(CpuUpfirdn2dFourTaps<decltype(variant)::value>(problem, args.x, args.y)); });
  } else if (CpuUpfirdn2dChannelsLast<T>::takes(args)) {
    runner(CpuUpfirdn2dChannelsLast<T>(args));
  } else {
    runner(CpuUpfirdn2d<T>(args));
  }
}

}  // namespace ganformer
