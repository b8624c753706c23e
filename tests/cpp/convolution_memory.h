// Memory for the tensors of a case: flush against inaccessible pages, in any
// layout, with poison wherever no value lies.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "convolution_case.h"
#include "kernels/bfloat16.h"
#include "kernels/conv2d/view.h"

namespace convolution_test {

using convship::kernels::BFloat16;

// A NaN that no arithmetic makes; in an index a number that no window has.
template <typename T>
T poison() {
  return static_cast<T>(-77);
}
template <>
inline float poison() {
  const uint32_t bits = 0x7fc0dead;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <>
inline double poison() {
  const uint64_t bits = 0x7ff8dead0000beef;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <>
inline BFloat16 poison() {
  return {0x7fda};
}

template <typename T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

// Pages with an inaccessible one on each side. Reused by all cases; only pages
// that were touched take memory.
class Arena {
 public:
  Arena() : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* all = mmap(nullptr, kBytes + 2 * page_, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<std::byte*>(all) + page_;
    if (mprotect(begin_, kBytes, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  }
  ~Arena() { munmap(begin_ - page_, kBytes + 2 * page_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::byte* begin() const { return begin_; }
  std::byte* end() const { return begin_ + kBytes; }

 private:
  static constexpr std::size_t kBytes = std::size_t{256} << 20;
  std::size_t page_;
  std::byte* begin_;
};

// Sizes of a dense NCHW tensor.
struct Sizes {
  int64_t n;
  int64_t c;
  Pair image;
  int64_t count() const { return n * c * image.h * image.w; }
};

// Where a layout puts the values.
template <typename T>
View<T> layout_view(Layout layout, const Sizes& s, int expanded, T* data) {
  const auto [h, w] = s.image;
  View<T> view = nchw(data, s.c, s.image);
  switch (layout) {
    case Layout::nchw:
    case Layout::misaligned:
      break;
    case Layout::nhwc:
      return nhwc(data, s.c, s.image);
    case Layout::blocked:
      return blocked(data, s.c, s.image);
    case Layout::transposed:
      return {data, s.c * h * w, h * w, 1, h};
    case Layout::sliced:
      return {data, s.c * h * w * 8, h * w * 8, w * 4, 2};
    case Layout::wide_pixels:
      return {data, (s.c + 3) * h * (w + 2), 1, (s.c + 3) * (w + 2), s.c + 3};
    case Layout::expanded:
      int64_t* const steps[] = {&view.n_step, &view.c_step, &view.h_step, &view.w_step};
      for (int i = 0; i < kWhole; ++i) {
        if (expanded == i || expanded == kWhole) *steps[i] = 0;
      }
  }
  return view;
}

// One tensor of a case, in an arena.
template <typename T>
class Placed {
 public:
  Placed(const Arena& arena, Layout layout, const Sizes& sizes, int expanded, bool flush_end)
      : sizes_(sizes) {
    const View<T> steps = layout_view<T>(layout, sizes, expanded, nullptr);
    const auto [n, c, image] = sizes;
    const int64_t extent = sizes.count() == 0 ? 0
                                              : (n - 1) * steps.n_step + steps.channel(c - 1) +
                                                    (image.h - 1) * steps.h_step +
                                                    (image.w - 1) * steps.w_step + 1;
    const int64_t shift = layout == Layout::misaligned ? 1 : 0;
    T* const first = reinterpret_cast<T*>(arena.begin());
    T* const last = reinterpret_cast<T*>(arena.end());
    begin_ = flush_end ? last - (extent + kMargin) : first;
    end_ = flush_end ? last : first + shift + extent + kMargin;
    T* const data = flush_end ? last - extent : first + shift;
    if (begin_ < first || end_ > last) throw std::bad_alloc();
    view_ = layout_view<T>(layout, sizes, expanded, data);
    for (T* at = begin_; at != end_; ++at) *at = poison<T>();
  }

  const View<T>& view() const { return view_; }
  View<const T> view_of_const() const {
    return {view_.data, view_.n_step, view_.c_step, view_.h_step, view_.w_step, view_.block};
  }

  void put(const std::vector<T>& dense) const {
    visit([&](T& value, int64_t i) { value = dense[i]; });
  }

  // The dense values; poison takes their place.
  std::vector<T> take() const {
    std::vector<T> dense(sizes_.count());
    visit([&](T& value, int64_t i) {
      dense[i] = value;
      value = poison<T>();
    });
    return dense;
  }

  std::vector<T> read() const {
    std::vector<T> dense(sizes_.count());
    visit([&](const T& value, int64_t i) { dense[i] = value; });
    return dense;
  }

  // Whether nothing but poison is left, between and around the values.
  bool untouched() const {
    for (const T* at = begin_; at != end_; ++at) {
      if (!same_bits(*at, poison<T>())) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kMargin = 64;

  template <typename Visit>
  void visit(const Visit& visit) const {
    int64_t i = 0;
    for (int64_t n = 0; n < sizes_.n; ++n) {
      for (int64_t c = 0; c < sizes_.c; ++c) {
        for (int64_t y = 0; y < sizes_.image.h; ++y) {
          T* row = view_.at(n, c, y, 0);
          for (int64_t x = 0; x < sizes_.image.w; ++x) visit(row[x * view_.w_step], i++);
        }
      }
    }
  }

  Sizes sizes_;
  View<T> view_{};
  T* begin_;
  T* end_;
};

// A dense list of values (weights, bias, an index).
template <typename T>
class PlacedList : public Placed<T> {
 public:
  PlacedList(const Arena& arena, int64_t count, bool flush_end)
      : Placed<T>(arena, Layout::nchw, {1, 1, {1, count}}, 0, flush_end) {}
  T* data() const { return this->view().data; }
};

}  // namespace convolution_test
