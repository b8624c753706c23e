#include "kernels/conv2d/winners.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/conv2d/cut.h"
#include "kernels/conv2d/strip.h"
#include "kernels/instruction_set.h"
#include "kernels/scratch.h"

namespace convship::kernels::conv2d {
namespace {

template <typename T>
class Backward {
 public:
  Backward(const WinnersCall<T>& call, const Loops<T>& loops)
      : call_(call),
        g_(call.geometry),
        loops_(loops),
        columns_((g_.conv.w - 1) * g_.stride.w + g_.kernel.w),
        rows_((g_.conv.h - 1) * g_.stride.h + (g_.kernel.h - 1) * g_.dilation.h + 1),
        vectors_(ceil_div(g_.kernel.w * g_.c_in, loops.lanes)),
        // A last run is read and written to the end of its last vector.
        image_size_(rows_ * columns_ * g_.c_in + vectors_ * loops.lanes),
        weight_size_(g_.kernel.h * vectors_ * loops.lanes) {
    for (int64_t tap = 0; tap < g_.pool_size.h * g_.pool_size.w; ++tap) {
      taps_.push_back({tap / g_.pool_size.w, tap % g_.pool_size.w});
    }
  }

  bool run(const Parallel& parallel) {
    if (call_.grad_weight || call_.grad_bias) {
      images_ = make_aligned<T>(call_.grad_weight ? g_.n * image_size_ : 0);
      if (call_.grad_weight) {
        parallel.run(g_.n, 1, [&](int64_t begin, int64_t end) {
          for (int64_t n = begin; n < end; ++n) copy_image(n, images_.get() + n * image_size_);
        });
      }
      parallel.run(g_.c_out, 1, [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) weight_of(o);
      });
    }
    if (call_.grad_input.data) {
      pack_weight();
      parallel.run(g_.n, 1, [&](int64_t begin, int64_t end) { images(begin, end); });
    }
    return inside_;
  }

 private:
  struct List {
    std::vector<int32_t> places;
    std::vector<T> grads;
    int64_t count = 0;
    explicit List(const Geometry& g)
        : places(g.pooled.h * g.pooled.w), grads(g.pooled.h * g.pooled.w) {}
  };

  // The image with padding, channels side by side.
  void copy_image(int64_t n, T* to) const {
    const Strip strip{g_.c_in, rows_, columns_, {nullptr, 0, 1, columns_ * g_.c_in, g_.c_in}, 0};
    copy_strip(strip, call_.input, g_.image, n, 0, -g_.padding.h, -g_.padding.w, to);
    std::fill(to + rows_ * columns_ * g_.c_in, to + image_size_, T(0));
  }

  // The winners of channel o of image n that have a gradient.
  void find(int64_t n, int64_t o, List& list) {
    const uint8_t* index = call_.index + (n * g_.c_out + o) * g_.pooled.h * g_.pooled.w;
    int64_t count = 0;
    for (int64_t y = 0; y < g_.pooled.h; ++y) {
      const T* grad = call_.grad.at(n, o, y, 0);
      const T* output = call_.output.data ? call_.output.at(n, o, y, 0) : nullptr;
      for (int64_t x = 0; x < g_.pooled.w; ++x, ++index) {
        if (*index >= taps_.size()) {
          inside_ = false;
          return;
        }
        const Pair tap = taps_[*index];
        const int64_t row = y * g_.pool_stride.h - g_.pool_padding.h + tap.h;
        const int64_t column = x * g_.pool_stride.w - g_.pool_padding.w + tap.w;
        if (row < 0 || row >= g_.conv.h || column < 0 || column >= g_.conv.w) {
          inside_ = false;
          return;
        }
        const T value = grad[x * call_.grad.w_step];
        list.places[count] =
            static_cast<int32_t>((row * g_.stride.h * columns_ + column * g_.stride.w) * g_.c_in);
        list.grads[count] = value;
        // Not a branch: which half is positive cannot be predicted. NaN counts.
        const bool active = !output || !(output[x * call_.output.w_step] <= T(0));
        count += active & (value != T(0));
      }
    }
    list.count = count;
  }

  WinnersTask<T> task(const List& list, T* image, T* weight) const {
    return {list.places.data(),
            list.grads.data(),
            list.count,
            image,
            g_.dilation.h * columns_ * g_.c_in,
            weight,
            vectors_ * loops_.lanes,
            g_.kernel.h,
            static_cast<int>(vectors_)};
  }

  void weight_of(int64_t o) {
    List list(g_);
    const auto sum = make_scratch<T>(weight_size_);
    std::fill_n(sum.get(), weight_size_, T(0));
    T bias = 0;
    for (int64_t n = 0; n < g_.n; ++n) {
      find(n, o, list);
      T part = 0;
      for (int64_t i = 0; i < list.count; ++i) part += list.grads[i];
      bias += part;
      if (call_.grad_weight) {
        loops_.winners_to_weight(task(list, images_.get() + n * image_size_, sum.get()));
      }
    }
    if (call_.grad_bias) call_.grad_bias[o] = bias;
    if (!call_.grad_weight) return;
    for_each_weight(o, [&](int64_t at, int64_t packed) { call_.grad_weight[at] = sum[packed]; });
  }

  // visit(place in the dense weight, place in a packed one)
  template <typename Visit>
  void for_each_weight(int64_t o, const Visit& visit) const {
    for (int64_t c = 0; c < g_.c_in; ++c) {
      for (int64_t i = 0; i < g_.kernel.h; ++i) {
        for (int64_t j = 0; j < g_.kernel.w; ++j) {
          visit(((o * g_.c_in + c) * g_.kernel.h + i) * g_.kernel.w + j,
                i * vectors_ * loops_.lanes + j * g_.c_in + c);
        }
      }
    }
  }

  void pack_weight() {
    weights_ = make_aligned<T>(g_.c_out * weight_size_);
    std::fill_n(weights_.get(), g_.c_out * weight_size_, T(0));
    for (int64_t o = 0; o < g_.c_out; ++o) {
      for_each_weight(o, [&](int64_t at, int64_t packed) {
        weights_[o * weight_size_ + packed] = call_.weight[at];
      });
    }
  }

  void images(int64_t begin, int64_t end) {
    List list(g_);
    const auto image = make_scratch<T>(image_size_);
    for (int64_t n = begin; n < end; ++n) {
      std::fill_n(image.get(), image_size_, T(0));
      for (int64_t o = 0; o < g_.c_out; ++o) {
        find(n, o, list);
        loops_.winners_to_image(task(list, image.get(), weights_.get() + o * weight_size_));
      }
      for (int64_t c = 0; c < g_.c_in; ++c) {
        for (int64_t y = 0; y < g_.image.h; ++y) {
          for (int64_t x = 0; x < g_.image.w; ++x) {
            const int64_t row = y + g_.padding.h, column = x + g_.padding.w;
            // Rows and columns that no tap reaches have no gradient.
            *call_.grad_input.at(n, c, y, x) = row < rows_ && column < columns_
                                                   ? image[(row * columns_ + column) * g_.c_in + c]
                                                   : T(0);
          }
        }
      }
    }
  }

  const WinnersCall<T>& call_;
  const Geometry& g_;
  const Loops<T>& loops_;
  int64_t columns_;
  int64_t rows_;
  int64_t vectors_;
  int64_t image_size_;
  int64_t weight_size_;
  std::vector<Pair> taps_;
  AlignedArray<T> images_;
  AlignedArray<T> weights_;
  std::atomic<bool> inside_ = true;
};

}  // namespace

template <typename T>
bool has_winners_backward(const Geometry& g) {
  const Loops<T>& loops = loops_of<T>(instruction_set(active_instruction_set()));
  if (loops.lanes == 0 || g.groups != 1 || g.dilation.w != 1 ||
      g.pool_size.h * g.pool_size.w > 256) {
    return false;
  }
  const int64_t vectors = ceil_div(g.kernel.w * g.c_in, loops.lanes);
  const int64_t image = (g.image.h + 2 * g.padding.h) * (g.image.w + 2 * g.padding.w) * g.c_in;
  if (vectors > kMostWinnerVectors || image > std::numeric_limits<int32_t>::max()) return false;
  // Vectors that winners touch, and those of the whole conv result.
  const double sparse =
      static_cast<double>(g.pooled.h * g.pooled.w) * static_cast<double>(g.kernel.h * vectors + 8);
  const double dense = static_cast<double>(g.conv.h * g.conv.w * g.kernel.h * g.kernel.w) *
                       static_cast<double>(g.c_in) / loops.lanes;
  return sparse < dense;
}

template <typename T>
bool winners_backward(const WinnersCall<T>& call, const Parallel& parallel) {
  return Backward<T>(call, loops_of<T>(instruction_set(active_instruction_set()))).run(parallel);
}

template bool has_winners_backward<float>(const Geometry&);
template bool has_winners_backward<double>(const Geometry&);
template bool winners_backward(const WinnersCall<float>&, const Parallel&);
template bool winners_backward(const WinnersCall<double>&, const Parallel&);

}  // namespace convship::kernels::conv2d
