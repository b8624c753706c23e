#include "kernels/conv2d/depthwise.h"

#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/depthwise_input.h"

namespace convship::kernels::conv2d {
namespace {

WeightShape vectors_of(const WeightShape& shape, int64_t lanes) {
  const int64_t vectors = ceil_div(shape.c_out, lanes);
  return {vectors * lanes, 1, shape.kernel, vectors};
}

}  // namespace

template <typename T>
DepthwisePack<T>::DepthwisePack(const Loops<T>& loops,
                                const WeightShape& shape,
                                const T* weight,
                                const T* bias)
    : loops_(loops), packed_(ChannelBlocks(vectors_of(shape, loops.lanes), loops.lanes)) {
  const int64_t lanes = loops.lanes, padded = ceil_div(shape.c_out, lanes) * lanes;
  const int64_t taps = shape.kernel.h * shape.kernel.w;
  packed_.loop = loops.depthwise;
  packed_.weight = make_weights<T>(padded * taps);
  packed_.bias = make_aligned<T>(padded);
  for (int64_t c = 0; c < padded; ++c) {
    const bool exists = c < shape.c_out;
    packed_.bias[c] = bias && exists ? bias[c] + T(0) : T(0);  // never -0.0
    T* to = packed_.weight.get() + c / lanes * lanes * taps + c % lanes;
    for (int64_t tap = 0; tap < taps; ++tap) to[tap * lanes] = exists ? weight[c * taps + tap] : 0;
  }
}

template <typename T>
std::vector<int64_t> DepthwisePack<T>::run(const Call<T>& call, const Parallel& parallel) const {
  // A group is a vector of channels, of which the loop sees one.
  Geometry g = call.geometry;
  g.c_in = g.groups = ceil_div(g.c_out, loops_.lanes);
  DepthwiseInput<T> input(loops_, g, call.input);
  run_channels<T>(packed_, input,
                  {g, call.activation, call.input, call.output, call.residual, call.index},
                  parallel);
  return {};
}

template class DepthwisePack<float>;
template class DepthwisePack<double>;

}  // namespace convship::kernels::conv2d
