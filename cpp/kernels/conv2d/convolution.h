// One convolution with its epilogue: bias, residual, activation, max pooling.
//
//   y[n,o,p,q] = max over the window at (p,q) of
//                act(bias[o] + sum over c,i,j of weight[o,c,i,j] * x[n,g(o)+c,...]
//                    + residual[n,o,p,q])
//
// Layouts of input and output are a matter of their views; no pooling is a
// window of 1x1 (pool_size 1, pool_stride 1, pool_padding 0).
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/bfloat16.h"
#include "kernels/conv2d/family.h"
#include "kernels/conv2d/geometry.h"
#include "kernels/conv2d/rounding.h"
#include "kernels/conv2d/view.h"
#include "kernels/parallel.h"

namespace convship::kernels {
struct InstructionSet;
}  // namespace convship::kernels

namespace convship::kernels::conv2d {

template <typename T>
class Pack;
template <typename T>
struct Call;

enum class Accuracy { direct, fast };

// Receives the winning tap i * pool_size.w + j of each window, dense NCHW; the
// type must hold every tap. At most one of the two is set.
struct WindowIndex {
  uint8_t* narrow = nullptr;
  int32_t* wide = nullptr;
  explicit operator bool() const { return narrow != nullptr || wide != nullptr; }
};

// How often the process has packed weights, and how many of these packings
// still exist.
struct Packings {
  int64_t made = 0;
  int64_t kept = 0;
};
Packings packings();

// Packs the weights for the loops that calls need, when they first need them,
// and keeps them. Thread-safe. T is float, double or BFloat16; BFloat16 is
// summed in float and rounded once. By tiles (instruction set amx), values of BFloat16 and sums
// below the smallest normal number count as 0.
template <typename T>
class Convolution {
 public:
  // weight [c_out, c_in / groups, kernel] dense, bias [c_out] or null. Referred
  // to, not copied: they must outlive the object and keep their values.
  //
  // rounding (float alone; weights are rounded already, see are_rounded): the
  // input is rounded to these numbers, and where the CPU multiplies them faster,
  // they are what is multiplied. To bfloat16 inputs are not rounded where float32
  // is as fast: nearer to the truth, and not the same bits.
  Convolution(const T* weight,
              const T* bias,
              const WeightShape& shape,
              Accuracy accuracy,
              const Rounding& rounding = {});
  ~Convolution();
  Convolution(const Convolution&) = delete;
  Convolution& operator=(const Convolution&) = delete;

  // The geometry's weights must have the shape that the object was made for.
  // residual.data may be null, and must be where there is pooling; its sizes
  // are those of the output. With an index, sums are direct.
  //
  // As in torch: NaN passes through activation and pooling (the last NaN of a
  // window wins), ties go to the first maximum, a window of nothing but -inf
  // gives -inf and its first tap. Padding contributes nothing, even to
  // infinite weights. A sum is never -0.0. An image's bits depend on nothing but
  // its values, the geometry, the accuracy and the instruction set.
  void run(const Geometry& geometry,
           Activation activation,
           const View<const T>& input,
           const View<T>& output,
           const View<const T>& residual,
           const WindowIndex& index,
           const Parallel& parallel) const;

  // Which loop serves this geometry, with the active instruction set.
  // Blocked: the input, the output have channels in blocks of kChannelBlock.
  Family family(const Geometry& geometry,
                bool input_blocked = false,
                bool output_blocked = false) const;
  const Rounding& rounding() const { return rounding_; }
  Accuracy accuracy() const { return accuracy_; }

 private:
  class Packs;
  bool may_round() const;
  // Sets the choice's loops over words and tiles that serve such calls.
  void offer_words(const InstructionSet& isa,
                   const Geometry& geometry,
                   int64_t block,
                   Choice& choice) const;
  // What is known of every call.
  Choice choice(const InstructionSet& isa) const;
  // The input is as the loops want it.
  void run_call(const Call<T>& call, const Parallel& parallel) const;
  std::unique_ptr<Pack<T>> make_pack(const InstructionSet& isa, Family family) const;

  const T* weight_;
  const T* bias_;
  WeightShape shape_;
  Accuracy accuracy_;
  Rounding rounding_;
  bool finite_;  // all weights are
  std::unique_ptr<Packs> packs_;
};

}  // namespace convship::kernels::conv2d
