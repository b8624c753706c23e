#include "kernels/conv2d/plain_pack.h"

#include <vector>

#include "kernels/conv2d/activation.h"
#include "kernels/conv2d/plain.h"

namespace convship::kernels::conv2d {

template <typename T>
struct PlainPack<T>::Widened {
  using A = AccumulatorOf<T>;
  std::vector<A> memory;
  const A* weight;
  const A* bias;
};

template <typename T>
PlainPack<T>::PlainPack(const WeightShape& shape, const T* weight, const T* bias)
    : widened_(std::make_unique<Widened>()) {
  if constexpr (std::is_same_v<T, AccumulatorOf<T>>) {
    widened_->weight = weight;
    widened_->bias = bias;
  } else {
    const int64_t count = shape.c_out * shape.channels * shape.kernel.h * shape.kernel.w;
    auto& memory = widened_->memory;
    memory.resize(count + (bias ? shape.c_out : 0));
    for (int64_t i = 0; i < count; ++i) memory[i] = Accumulator<T>::widen(weight[i]);
    for (int64_t o = 0; bias && o < shape.c_out; ++o) {
      memory[count + o] = Accumulator<T>::widen(bias[o]);
    }
    widened_->weight = memory.data();
    widened_->bias = bias ? memory.data() + count : nullptr;
  }
}

template <typename T>
PlainPack<T>::~PlainPack() = default;

namespace {

bool is_dense(const auto& view, int64_t channels, Pair size) {
  return view.block == 1 && view.w_step == 1 && view.h_step == size.w &&
         view.c_step == size.h * size.w && view.n_step == channels * size.h * size.w;
}

template <typename Visit>
void for_each(int64_t n, int64_t c, Pair size, const Visit& visit) {
  int64_t at = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < c; ++k) {
      for (int64_t y = 0; y < size.h; ++y) {
        for (int64_t x = 0; x < size.w; ++x) visit(i, k, y, x, at++);
      }
    }
  }
}

}  // namespace

template <typename T>
std::vector<int64_t> PlainPack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  using A = AccumulatorOf<T>;
  const Geometry& g = call.geometry;
  std::vector<A> copied_input, copied_output;
  const A* x = nullptr;
  A* y = nullptr;
  if constexpr (std::is_same_v<T, A>) {
    if (is_dense(call.input, g.c_in, g.image)) x = call.input.data;
    if (is_dense(call.output, g.c_out, g.pooled)) y = call.output.data;
  }
  if (!x) {
    copied_input.resize(g.n * g.c_in * g.image.h * g.image.w);
    for_each(g.n, g.c_in, g.image, [&](int64_t n, int64_t c, int64_t h, int64_t w, int64_t at) {
      copied_input[at] = Accumulator<T>::widen(*call.input.at(n, c, h, w));
    });
    x = copied_input.data();
  }
  const bool copy_out = !y;
  if (copy_out) {
    copied_output.resize(g.n * g.c_out * g.pooled.h * g.pooled.w);
    y = copied_output.data();
  }
  const bool relu = call.activation == Activation::relu;
  const Activation early = relu && !call.residual.data ? Activation::relu : Activation::none;
  const Activation late = early == Activation::none ? call.activation : Activation::none;
  if (call.index.wide) {
    conv_pool2d_plain<A, int32_t>(g, early, x, widened_->weight, widened_->bias, y, call.index.wide,
                                  parallel);
  } else {
    conv_pool2d_plain<A, uint8_t>(g, early, x, widened_->weight, widened_->bias, y,
                                  call.index.narrow, parallel);
  }
  if (!copy_out && !call.residual.data && late == Activation::none) return {};
  for_each(g.n, g.c_out, g.pooled, [&](int64_t n, int64_t c, int64_t h, int64_t w, int64_t at) {
    A value = y[at];
    if (call.residual.data) value += Accumulator<T>::widen(*call.residual.at(n, c, h, w));
    *call.output.at(n, c, h, w) = Accumulator<T>::narrow(activate(late, value));
  });
  return {};
}

template class PlainPack<float>;
template class PlainPack<double>;
template class PlainPack<BFloat16>;

}  // namespace convship::kernels::conv2d
