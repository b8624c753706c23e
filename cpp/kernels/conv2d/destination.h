// The output's side of a task: straight into the caller's memory where the
// loops can write it, else by way of a buffer.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/pack.h"
#include "kernels/conv2d/tasks.h"

namespace convship::kernels::conv2d {

template <typename T>
class Destination {
 public:
  using A = AccumulatorOf<T>;

  // lanes: channels that the loop writes side by side, 1 where its lanes hold
  // columns. narrow: used where T is BFloat16.
  Destination(const Call<T>& call, int64_t lanes, void (*narrow)(const Narrow<A>&))
      : g_(call.geometry),
        activation_(call.activation),
        output_(call.output),
        residual_(call.residual),
        index_(call.index),
        lanes_(lanes),
        narrow_(narrow) {}

  // Values of buffer for `channels` channels and `rows` pooled rows.
  int64_t buffer_size(int64_t channels, int64_t rows) const {
    return 2 * channels * rows * g_.pooled.w;
  }

  // Whether the loop finds neighbouring channels side by side: in the output, or in a buffer,
  // whose order is the output's, or else what the loop writes fastest.
  bool channels_adjoin() const {
    if constexpr (std::is_same_v<T, A>) return output_.channels_adjoin();
    return lanes_ > 1 && (output_.channels_adjoin() || output_.w_step != 1);
  }

  // Runs `loop` on a target for channels [o, o + channels) of image n and the
  // task's rows, of which there are at most as many as the buffer was made for.
  template <typename Task>
  void run(Task& task, int64_t n, int64_t o, int64_t channels, A* buffer, void (*loop)(const Task&))
      const {
    Target<A>& to = task.target;
    const int64_t begin = task.pool.begin;
    const int64_t rows = task.pool.end - begin;
    const int64_t plane = g_.pooled.h * g_.pooled.w;
    to.channels = channels;
    to.activation = activation_;
    to.index_channel_step = plane;
    const int64_t at = (n * g_.c_out + o) * plane + begin * g_.pooled.w;
    to.narrow = index_.narrow ? index_.narrow + at : nullptr;
    to.wide = index_.wide ? index_.wide + at : nullptr;
    if constexpr (std::is_same_v<T, A>) {
      // Of a group that begins within a vector of a block, vectors lie in two blocks.
      if (output_.block == 1 || o % lanes_ == 0) {
        to.y = output_.at(n, o, begin, 0);
        to.residual = residual_.data ? residual_.at(n, o, begin, 0) : nullptr;
        to.channel_step = output_.block > 1 ? 1 : output_.c_step;
        to.row_step = output_.h_step;
        to.column_step = output_.w_step;
        for (int64_t i = 0; i < kMaxChannels; ++i) {
          to.starts[i] = output_.channel(o + i * lanes_) - output_.channel(o);
        }
        loop(task);
        return;
      }
    }
    const int64_t count = channels * rows * g_.pooled.w;
    const bool by_pixels = channels_adjoin();
    const View<A> view = by_pixels ? nhwc(buffer, channels, {rows, g_.pooled.w})
                                   : nchw(buffer, channels, {rows, g_.pooled.w});
    to.y = view.data;
    to.residual = residual_.data ? buffer + count : nullptr;
    to.channel_step = view.c_step;
    to.row_step = view.h_step;
    to.column_step = view.w_step;
    for (int64_t i = 0; i < kMaxChannels; ++i) to.starts[i] = i * lanes_ * view.c_step;
    const auto for_rows = [&](const auto& visit) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t y = 0; y < rows; ++y) visit(c, y, view.at(0, c, y, 0));
      }
    };
    if (residual_.data) {
      for_rows([&](int64_t c, int64_t y, A* row) {
        const T* from = residual_.at(n, o + c, begin + y, 0);
        for (int64_t x = 0; x < g_.pooled.w; ++x) {
          row[count + x * view.w_step] = Accumulator<T>::widen(from[x * residual_.w_step]);
        }
      });
    }
    loop(task);
    if constexpr (!std::is_same_v<T, A>) {
      const int64_t width = g_.pooled.w;
      if (by_pixels && output_.c_step == 1 && output_.block == 1) {
        for (int64_t y = 0; y < rows; ++y) {
          narrow_({view.at(0, 0, y, 0), channels, width, channels, output_.at(n, o, begin + y, 0),
                   output_.w_step});
        }
        return;
      }
      if (!by_pixels && output_.w_step == 1) {
        // Rows that adjoin are one.
        const int64_t in_piece = output_.h_step == width ? rows : 1;
        for (int64_t y = 0; y < rows; y += in_piece) {
          narrow_({view.at(0, 0, y, 0), rows * width, channels, in_piece * width,
                   output_.at(n, o, begin + y, 0), output_.c_step});
        }
        return;
      }
    }
    for_rows([&](int64_t c, int64_t y, const A* row) {
      T* const out = output_.at(n, o + c, begin + y, 0);
      for (int64_t x = 0; x < g_.pooled.w; ++x) {
        out[x * output_.w_step] = Accumulator<T>::narrow(row[x * view.w_step]);
      }
    });
  }

 private:
  const Geometry& g_;
  Activation activation_;
  const View<T>& output_;
  const View<const T>& residual_;
  const WindowIndex& index_;
  int64_t lanes_;
  void (*narrow_)(const Narrow<A>&);
};

}  // namespace convship::kernels::conv2d
