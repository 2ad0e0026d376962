// The ops in TensorFlow: shapes, CPU kernels on TensorFlow's own threads, GPU kernels on its stream. Gradients: ops/compiled.py.
//
// GANFORMER_OK_STATUS: Status::OK(), or absl::OkStatus() in newer TensorFlow 2. GANFORMER_CUDA: the launchers are linked in.
#ifdef GANFORMER_CUDA
#define EIGEN_USE_GPU
#include <cuda_runtime_api.h>
#endif

#include <functional>
#include <utility>

#include "cpu_bias_act.h"
#include "cpu_tasks.h"
#include "cpu_upfirdn2d_kernels.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/lib/core/threadpool.h"

namespace ganformer {
namespace {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;

REGISTER_OP("GanformerBiasAct")
    .Input("x: T")
    .Input("scale: T")
    .Input("residual: T")
    .Input("noise: T")
    .Input("bias: T")
    .Input("ref: T")
    .Output("y: T")
    .Attr("T: {half, bfloat16, float}")
    .Attr("act: int")
    .Attr("order: int >= 0")
    .Attr("alpha: float")
    .Attr("gain: float")
    .Attr("clamp: float")
    .Attr("channels_last: bool")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(0));
      return GANFORMER_OK_STATUS;
    });

REGISTER_OP("GanformerUpfirdn2d")
    .Input("x: T")
    .Input("fy: float")
    .Input("fx: float")
    .Output("y: T")
    .Attr("T: {half, bfloat16, float}")
    .Attr("up: list(int)")     // y, x
    .Attr("down: list(int)")   // y, x
    .Attr("pad: list(int)")    // top, bottom, left, right
    .Attr("flip: bool")
    .Attr("channels_last: bool")
    .SetShapeFn([](InferenceContext* c) {
      std::vector<int32_t> up, down, pad;
      bool channels_last;
      TF_RETURN_IF_ERROR(c->GetAttr("up", &up));
      TF_RETURN_IF_ERROR(c->GetAttr("down", &down));
      TF_RETURN_IF_ERROR(c->GetAttr("pad", &pad));
      TF_RETURN_IF_ERROR(c->GetAttr("channels_last", &channels_last));
      if (up.size() != 2 || down.size() != 2 || pad.size() != 4) return InvalidArgument("up and down take 2 numbers, pad 4");
      if (up[0] < 1 || up[1] < 1 || down[0] < 1 || down[1] < 1) return InvalidArgument("up and down are positive");
      tensorflow::shape_inference::ShapeHandle x, y;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
      y = x;
      const auto fy = c->input(1), fx = c->input(2);
      for (int axis = 0; axis < 2; axis++) {
        const int at = axis + (channels_last ? 1 : 2);
        const auto known = c->RankKnown(fy) && c->RankKnown(fx) ? (c->Rank(fy) == 2 ? c->Dim(fy, axis) : c->Dim(axis ? fx : fy, 0))
                                                                : c->UnknownDim();
        auto size = c->UnknownDim();
        if (c->ValueKnown(c->Dim(x, at)) && c->ValueKnown(known)) {
          const int64_t room = c->Value(c->Dim(x, at)) * up[axis] + pad[2 * axis] + pad[2 * axis + 1] - c->Value(known);
          if (room < 0) return InvalidArgument("upfirdn2d: the filter is longer than the padded input");
          size = c->MakeDim(room / down[axis] + 1);
        }
        TF_RETURN_IF_ERROR(c->ReplaceDim(y, at, size, &y));
      }
      c->set_output(0, y);
      return GANFORMER_OK_STATUS;
    });

template <typename T>
struct ElementOf;
template <>
struct ElementOf<float> {
  typedef float Cpu;
  static const int kType = GANFORMER_FLOAT32;
};
template <>
struct ElementOf<Eigen::half> {
  typedef Eigen::half Cpu;
  static const int kType = GANFORMER_FLOAT16;
};
template <>
struct ElementOf<tensorflow::bfloat16> {
  typedef bfloat16 Cpu;
  static const int kType = GANFORMER_BFLOAT16;
};

template <typename Op>
void run_on_cpu(OpKernelContext* context, const Op& op, int64_t tasks, int64_t task_elements) {
  const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
  auto* const workers = pool.workers;
  run_tasks(op, tasks, task_elements, pool.num_threads, [workers](std::function<void()> work) { workers->Schedule(std::move(work)); });
}

const void* pointer_or_null(const Tensor& tensor) { return tensor.NumElements() ? tensor.tensor_data().data() : nullptr; }

void* output_pointer(Tensor* tensor) { return const_cast<char*>(tensor->tensor_data().data()); }

// Runs on the CPU.
struct Cpu {
  template <typename T>
  static void bias_act(OpKernelContext* context, const GanformerBiasAct& args) {
    const CpuBiasAct<typename ElementOf<T>::Cpu> op(args);
    run_on_cpu(context, op, op.tasks(), op.task_elements() * (is_piecewise_linear(args.act) ? 1 : 20));
  }
  template <typename T>
  static void upfirdn2d(OpKernelContext* context, const GanformerUpfirdn2d& args) {
    with_cpu_upfirdn2d<typename ElementOf<T>::Cpu>(
        args, [context](const auto& op) { run_on_cpu(context, op, op.tasks(), op.task_elements()); });
  }
};

#ifdef GANFORMER_CUDA
// Runs on the GPU that the op was placed on.
struct Gpu {
  static void* stream(OpKernelContext* context) { return context->eigen_device<Eigen::GpuDevice>().stream(); }
  static void check(OpKernelContext* context, int code) {
    OP_REQUIRES(context, code == 0, tensorflow::errors::Internal("CUDA kernel launch failed: ", cudaGetErrorString(cudaError_t(code))));
  }
  template <typename T>
  static void bias_act(OpKernelContext* context, const GanformerBiasAct& args) {
    check(context, ganformer_bias_act(&args, stream(context)));
  }
  template <typename T>
  static void upfirdn2d(OpKernelContext* context, GanformerUpfirdn2d args) {
    Tensor workspace;
    const int64_t bytes = ganformer_upfirdn2d_workspace(&args);
    OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_INT8, TensorShape({bytes}), &workspace));
    args.workspace = output_pointer(&workspace);
    check(context, ganformer_upfirdn2d(&args, stream(context)));
  }
};
#endif

template <typename Runner, typename T>
class BiasActOp : public OpKernel {
 public:
  explicit BiasActOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("act", &act_));
    OP_REQUIRES_OK(context, context->GetAttr("order", &order_));
    OP_REQUIRES_OK(context, context->GetAttr("alpha", &alpha_));
    OP_REQUIRES_OK(context, context->GetAttr("gain", &gain_));
    OP_REQUIRES_OK(context, context->GetAttr("clamp", &clamp_));
    OP_REQUIRES_OK(context, context->GetAttr("channels_last", &channels_last_));
    OP_REQUIRES(context, act_ >= kLinear && act_ <= kSwish, InvalidArgument("no activation has the number ", act_));
    OP_REQUIRES(context, order_ <= kMaxOrder, InvalidArgument("derivatives go up to order ", kMaxOrder, ", got ", order_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &scale = context->input(1), &residual = context->input(2), &noise = context->input(3),
                 &bias = context->input(4), &ref = context->input(5);
    OP_REQUIRES(context, x.dims() >= 2, InvalidArgument("x needs at least 2 axes, got ", x.shape().DebugString()));
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &y));
    if (x.NumElements() == 0) return;
    GanformerBiasAct args = GanformerBiasAct();
    args.samples = x.dim_size(0);
    args.channels = x.dim_size(channels_last_ ? x.dims() - 1 : 1);
    args.pixels = x.NumElements() / (args.samples * args.channels);
    args.noise_samples = noise.NumElements() == args.pixels ? 1 : args.samples;
    expect(context, "scale", scale, args.samples * args.channels);
    expect(context, "residual", residual, x.NumElements());
    expect(context, "noise", noise, args.noise_samples * args.pixels);
    expect(context, "bias", bias, args.channels);
    expect(context, "ref", ref, x.NumElements());
    if (!context->status().ok()) return;
    args.x = pointer_or_null(x);
    args.scale = pointer_or_null(scale);
    args.residual = pointer_or_null(residual);
    args.noise = pointer_or_null(noise);
    args.bias = pointer_or_null(bias);
    args.ref = pointer_or_null(ref);
    args.y = output_pointer(y);
    args.channels_last = channels_last_;
    args.type = ElementOf<T>::kType;
    args.act = act_;
    args.order = order_;
    args.alpha = alpha_;
    args.gain = gain_;
    args.clamp = clamp_;
    Runner::template bias_act<T>(context, args);
  }

 private:
  static void expect(OpKernelContext* context, const char* name, const Tensor& tensor, int64_t elements) {
    const int64_t got = tensor.NumElements();
    if (got != 0 && got != elements) context->SetStatus(InvalidArgument(name, " needs ", elements, " elements, got ", got));
  }

  int act_, order_;
  float alpha_, gain_, clamp_;
  bool channels_last_;
};

template <typename Runner, typename T>
class Upfirdn2dOp : public OpKernel {
 public:
  explicit Upfirdn2dOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("up", &up_));
    OP_REQUIRES_OK(context, context->GetAttr("down", &down_));
    OP_REQUIRES_OK(context, context->GetAttr("pad", &pad_));
    OP_REQUIRES_OK(context, context->GetAttr("flip", &flip_));
    OP_REQUIRES_OK(context, context->GetAttr("channels_last", &channels_last_));
    OP_REQUIRES(context, up_.size() == 2 && down_.size() == 2 && pad_.size() == 4, InvalidArgument("up and down take 2 numbers, pad 4"));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &fy = context->input(1), &fx = context->input(2);
    OP_REQUIRES(context, x.dims() == 4, InvalidArgument("x needs 4 axes, got ", x.shape().DebugString()));
    const bool separable = fy.dims() == 1;
    OP_REQUIRES(context, separable ? fx.dims() == 1 && fx.NumElements() > 0 : fy.dims() == 2 && fx.NumElements() == 0,
                InvalidArgument("filters are fy [taps] and fx [taps], or fy [taps, taps] and fx []"));
    const int height_at = channels_last_ ? 1 : 2;
    GanformerUpfirdn2d args = GanformerUpfirdn2d();
    args.samples = x.dim_size(0);
    args.channels = x.dim_size(channels_last_ ? 3 : 1);
    args.in_h = x.dim_size(height_at);
    args.in_w = x.dim_size(height_at + 1);
    args.taps_y = fy.dim_size(0);
    args.taps_x = separable ? fx.dim_size(0) : fy.dim_size(1);
    args.up_y = up_[0];
    args.up_x = up_[1];
    args.down_y = down_[0];
    args.down_x = down_[1];
    args.pad_y0 = pad_[0];
    args.pad_x0 = pad_[2];
    OP_REQUIRES(context, acceptable(args),
                InvalidArgument("accepted are filters of 1 to ", kMaxTaps, " taps and factors of 1 to ", kMaxFactor));
    const int64_t room_y = args.in_h * up_[0] + pad_[0] + pad_[1] - args.taps_y;
    const int64_t room_x = args.in_w * up_[1] + pad_[2] + pad_[3] - args.taps_x;
    OP_REQUIRES(context, room_y >= 0 && room_x >= 0, InvalidArgument("the filter is longer than the padded input"));
    args.out_h = room_y / down_[0] + 1;
    args.out_w = room_x / down_[1] + 1;
    TensorShape shape = x.shape();
    shape.set_dim(height_at, args.out_h);
    shape.set_dim(height_at + 1, args.out_w);
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &y));
    if (y->NumElements() == 0) return;
    args.x = pointer_or_null(x);
    args.fy = fy.flat<float>().data();
    args.fx = separable ? fx.flat<float>().data() : nullptr;
    args.y = output_pointer(y);
    args.flip = flip_;
    args.channels_last = channels_last_;
    args.type = ElementOf<T>::kType;
    Runner::template upfirdn2d<T>(context, args);
  }

 private:
  std::vector<int32_t> up_, down_, pad_;
  bool flip_, channels_last_;
};

#define GANFORMER_REGISTER(where, Runner, T) \
  REGISTER_KERNEL_BUILDER(Name("GanformerBiasAct").Device(where).TypeConstraint<T>("T"), BiasActOp<Runner, T>) \
  REGISTER_KERNEL_BUILDER(Name("GanformerUpfirdn2d").Device(where).TypeConstraint<T>("T"), Upfirdn2dOp<Runner, T>)
#define GANFORMER_REGISTER_TYPES(where, Runner) \
  GANFORMER_REGISTER(where, Runner, float); \
  GANFORMER_REGISTER(where, Runner, Eigen::half); \
  GANFORMER_REGISTER(where, Runner, tensorflow::bfloat16)

GANFORMER_REGISTER_TYPES(tensorflow::DEVICE_CPU, Cpu);
#ifdef GANFORMER_CUDA
GANFORMER_REGISTER_TYPES(tensorflow::DEVICE_GPU, Gpu);
#endif

}  // namespace
}  // namespace ganformer
