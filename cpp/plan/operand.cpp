#include <algorithm>

#include "plan/steps.h"

namespace convship::plan {

using kernels::conv2d::kChannelBlock;
using kernels::conv2d::View;

View<float> Operand::view(const Frame& frame) const {
  if (place.where == Place::Where::output) {
    View<float> dense = kernels::conv2d::nchw(frame.outputs[place.offset], size.c, size.image);
    dense.data += frame.first_image * dense.n_step;
    return dense;
  }
  View<float> blocked = kernels::conv2d::blocked(data(frame), size.c, size.image);
  blocked.n_step = place.n_step;
  return blocked;
}

View<const float> Operand::const_view(const Frame& frame) const {
  if (place.where == Place::Where::input) {
    View<const float> input = frame.inputs[place.offset];
    input.data += frame.first_image * input.n_step;
    return input;
  }
  const View<float> v = view(frame);
  return {v.data, v.n_step, v.c_step, v.h_step, v.w_step, v.block};
}

float* Operand::data(const Frame& frame) const {
  if (place.where == Place::Where::micro_batch) return frame.micro_batch + place.offset;
  return frame.memory + place.offset + frame.first_image * place.n_step;
}

float* Operand::channel(const Frame& frame, int64_t n, int64_t c) const {
  return block(frame, n, c / kChannelBlock) + c % kChannelBlock;
}

float* Operand::block(const Frame& frame, int64_t n, int64_t number) const {
  return data(frame) + n * place.n_step + number * block_step();
}

int64_t Operand::blocks() const { return (size.c + kChannelBlock - 1) / kChannelBlock; }

int64_t Operand::block_step() const { return size.pixels() * kChannelBlock; }

int64_t grain(int64_t operations) {
  constexpr int64_t kWorthAThread = 40'000;
  return std::max<int64_t>(1, kWorthAThread / std::max<int64_t>(1, operations));
}

std::vector<float> padded(const std::vector<float>& values) {
  std::vector<float> result((values.size() + kChannelBlock - 1) / kChannelBlock * kChannelBlock);
  std::copy(values.begin(), values.end(), result.begin());
  return result;
}

std::string describe(const Size& size) {
  std::string text = std::to_string(size.n);
  const auto append = [&](int64_t extent) { text.append("x").append(std::to_string(extent)); };
  append(size.c);
  if (!size.matrix) {
    append(size.image.h);
    append(size.image.w);
  }
  return text;
}

}  // namespace convship::plan
