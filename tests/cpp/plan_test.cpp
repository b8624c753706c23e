// Random networks through plans against the same layers in float64, one after the
// other, as their definitions say. Needs the kernels and nothing else.
#include "plan/plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "convship/isa.h"

using namespace convship::plan;
namespace conv2d = convship::kernels::conv2d;

namespace {

using Values = std::vector<double>;  // dense NCHW
using How = convship::kernels::CombineTask::How;

double activated(Activation activation, double x) {
  const double six = std::clamp(x, 0.0, 6.0), hard = std::clamp(x + 3, 0.0, 6.0) / 6;
  const double sigmoid = 1 / (1 + std::exp(-x));
  switch (activation.kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::relu6:
      return six;
    case Activation::sigmoid:
      return sigmoid;
    case Activation::hardsigmoid:
      return hard;
    case Activation::silu:
      return x * sigmoid;
    case Activation::hardswish:
      return x * hard;
    case Activation::gelu:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::leaky_relu:
      return x > 0 ? x : activation.a * x;
    case Activation::clamp:
      return std::clamp<double>(x, activation.a, activation.b);
    case Activation::elu:
      return x > 0 ? activation.b * x : activation.a * std::expm1(x);
    case Activation::tanh:
      return std::tanh(x);
    case Activation::softplus:
      return std::log1p(std::exp(x));
    case Activation::abs:
      return std::abs(x);
    case Activation::erf:
      return std::erf(x);
    case Activation::exp:
      return std::exp(x);
    case Activation::log:
      return std::log(x);
    case Activation::power:
      // As torch: of -0.0 and of what is below every number, std::pow makes others of them.
      if (std::abs(activation.a) == 0.5f) return std::pow(std::sqrt(x), activation.a > 0 ? 1 : -1);
      return std::pow(x, activation.a);
    case Activation::mish:
      return x * std::tanh(std::log1p(std::exp(x)));
  }
  return x;
}

// One layer by its definition; `in` holds the operands, `y` is the result's size.
class Reference {
 public:
  Reference(const std::vector<const Values*>& in, const std::vector<Size>& sizes, const Size& y)
      : in_(in), x_(sizes[0]), sizes_(sizes), y_(y), out_(elements(y)) {}

  static std::size_t elements(const Size& size) {
    return static_cast<std::size_t>(size.n * size.c * size.pixels());
  }
  Values take() { return std::move(out_); }

  void operator()(const Convolve& conv) {
    const int64_t channels = conv.shape.channels, per_group = y_.c / conv.shape.groups;
    const Pair k = conv.shape.kernel;
    each([&](int64_t n, int64_t o, int64_t p, int64_t q) {
      double sum = conv.bias == nullptr ? 0 : conv.bias[o];
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < k.h; ++i) {
          for (int64_t j = 0; j < k.w; ++j) {
            const double value = at(n, o / per_group * channels + c,
                                    p * conv.stride.h + i * conv.dilation.h - conv.padding.h,
                                    q * conv.stride.w + j * conv.dilation.w - conv.padding.w);
            const double rounded = conv.weights->rounding()(static_cast<float>(value));
            sum += (conv.weights->rounding() ? rounded : value) *
                   conv.weight[((o * channels + c) * k.h + i) * k.w + j];
          }
        }
      }
      return sum;
    });
  }
  void operator()(const Linear& linear) {
    each([&](int64_t n, int64_t o, int64_t, int64_t) {
      double sum = linear.bias == nullptr ? 0 : linear.bias[o];
      for (int64_t i = 0; i < linear.in; ++i) {
        sum += (*in_[0])[static_cast<std::size_t>(n * linear.in + i)] *
               linear.weight[o * linear.in + i];
      }
      return sum;
    });
  }
  void operator()(const MaxPool& pool) {
    const Windows& w = pool.windows;
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      double most = -std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < w.size.h; ++i) {
        for (int64_t j = 0; j < w.size.w; ++j) {
          const int64_t h = p * w.stride.h + i - w.padding.h, v = q * w.stride.w + j - w.padding.w;
          if (inside(h, v)) most = std::max(most, at(n, c, h, v));
        }
      }
      return most;
    });
  }
  void operator()(const AveragePool& pool) {
    const Windows& w = pool.windows;
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      double sum = 0;
      int64_t count = 0, real = 0;
      for (int64_t i = 0; i < w.size.h; ++i) {
        for (int64_t j = 0; j < w.size.w; ++j) {
          const int64_t h = p * w.stride.h + i - w.padding.h, v = q * w.stride.w + j - w.padding.w;
          sum += at(n, c, h, v);
          real += inside(h, v);
          count += h < x_.image.h + w.padding.h && v < x_.image.w + w.padding.w;
        }
      }
      return sum / static_cast<double>(pool.count_padding ? count : real);
    });
  }
  void operator()(const AdaptivePool& pool) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const auto begin = [](int64_t i, int64_t in, int64_t out) { return i * in / out; };
      const auto end = [](int64_t i, int64_t in, int64_t out) {
        return ((i + 1) * in + out - 1) / out;
      };
      double sum = 0, most = -std::numeric_limits<double>::infinity();
      int64_t count = 0;
      for (int64_t h = begin(p, x_.image.h, y_.image.h); h < end(p, x_.image.h, y_.image.h); ++h)
        for (int64_t v = begin(q, x_.image.w, y_.image.w); v < end(q, x_.image.w, y_.image.w);
             ++v) {
          sum += at(n, c, h, v);
          most = std::max(most, at(n, c, h, v));
          ++count;
        }
      return reduced(pool.reduction, sum, most, count);
    });
  }
  void operator()(const AcrossChannels& across) {
    each([&](int64_t n, int64_t, int64_t p, int64_t q) {
      double sum = 0, most = -std::numeric_limits<double>::infinity();
      for (int64_t c = 0; c < x_.c; ++c) {
        sum += at(n, c, p, q);
        most = std::max(most, at(n, c, p, q));
      }
      return reduced(across.reduction, sum, most, x_.c);
    });
  }
  void operator()(const Activate& layer) {
    for (std::size_t i = 0; i < out_.size(); ++i) {
      out_[i] = activated(layer.activation, (*in_[0])[i]);
    }
  }
  void operator()(const Round& layer) {
    for (std::size_t i = 0; i < out_.size(); ++i) {
      out_[i] = layer.rounding(static_cast<float>((*in_[0])[i]));
    }
  }
  void operator()(const Add&) { combine(How::add); }
  void operator()(const Combine& layer) { combine(layer.how); }
  void operator()(const CombineNumbers& layer) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const double x = at(n, c, p, q), number = (*layer.numbers)[static_cast<std::size_t>(c)];
      return layer.first ? combined(layer.how, number, x) : combined(layer.how, x, number);
    });
  }
  void operator()(const Affine& affine) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const auto channel = static_cast<std::size_t>(c);
      return at(n, c, p, q) * (*affine.scale)[channel] + (*affine.shift)[channel];
    });
  }
  void operator()(const Normalize& norm) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      double mean = 0, variance = 0;
      for (int64_t k = 0; k < y_.c; ++k) mean += at(n, k, p, q) / static_cast<double>(y_.c);
      for (int64_t k = 0; k < y_.c; ++k) {
        variance += std::pow(at(n, k, p, q) - mean, 2) / static_cast<double>(y_.c);
      }
      const auto channel = static_cast<std::size_t>(c);
      return (at(n, c, p, q) - mean) / std::sqrt(variance + norm.epsilon) * (*norm.scale)[channel] +
             (*norm.shift)[channel];
    });
  }
  void operator()(const TransposedConvolve&) {
    throw std::logic_error("compared with torch's, in tests/python/test_plan_layers.py");
  }
  void operator()(const Slope& slope) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const double x = at(n, c, p, q);
      return x > 0 ? x : x * (*slope.slope)[static_cast<std::size_t>(c)];
    });
  }
  void operator()(const GroupNorm& norm) {
    const int64_t size = y_.c / norm.groups;
    const auto average = [&](int64_t n, int64_t group, const auto& value) {
      double sum = 0;
      for (int64_t c = group * size; c < (group + 1) * size; ++c)
        for (int64_t p = 0; p < y_.image.h; ++p)
          for (int64_t q = 0; q < y_.image.w; ++q) sum += value(at(n, c, p, q));
      return sum / static_cast<double>(size * y_.pixels());
    };
    for (int64_t n = 0; n < y_.n; ++n) {
      for (int64_t group = 0; group < norm.groups; ++group) {
        const double mean = average(n, group, [](double x) { return x; });
        const double variance =
            average(n, group, [&](double x) { return (x - mean) * (x - mean); });
        for (int64_t c = group * size; c < (group + 1) * size; ++c) {
          const auto channel = static_cast<std::size_t>(c);
          for (int64_t p = 0; p < y_.image.h; ++p) {
            for (int64_t q = 0; q < y_.image.w; ++q) {
              out_[static_cast<std::size_t>(((n * y_.c + c) * y_.image.h + p) * y_.image.w + q)] =
                  (at(n, c, p, q) - mean) / std::sqrt(variance + norm.epsilon) *
                      (*norm.scale)[channel] +
                  (*norm.shift)[channel];
            }
          }
        }
      }
    }
  }
  void operator()(const Upsample& upsample) {
    struct Between {
      int64_t first, second;
      double share;
    };
    const auto between = [&](int64_t i, int64_t in, int64_t out) {
      const bool aligned = upsample.way == Upsample::Way::bilinear_aligned;
      const double step = aligned ? (out > 1 ? static_cast<double>(in - 1) / (out - 1) : 0)
                                  : static_cast<double>(in) / static_cast<double>(out);
      // In whole numbers, where an edge is met exactly.
      if (upsample.way == Upsample::Way::nearest) return Between{i * in / out, i * in / out, 0};
      const double place = std::max(0.0, aligned ? i * step : (i + 0.5) * step - 0.5);
      const auto first = std::min(static_cast<int64_t>(place), in - 1);
      return Between{first, std::min(first + 1, in - 1), place - static_cast<double>(first)};
    };
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const Between rows = between(p, x_.image.h, y_.image.h);
      const Between columns = between(q, x_.image.w, y_.image.w);
      const auto across = [&](int64_t row) {
        return at(n, c, row, columns.first) * (1 - columns.share) +
               at(n, c, row, columns.second) * columns.share;
      };
      return across(rows.first) * (1 - rows.share) + across(rows.second) * rows.share;
    });
  }
  void operator()(const Pad& pad) {
    // Step by step from outside to the image.
    const auto source = [&](int64_t i, int64_t size) {
      switch (pad.kind) {
        case Pad::Kind::constant:
          return i;
        case Pad::Kind::replicate:
          return std::clamp<int64_t>(i, 0, size - 1);
        case Pad::Kind::circular:
          return (i % size + size) % size;
        case Pad::Kind::reflect:
          while (i < 0 || i >= size) i = i < 0 ? -i : 2 * (size - 1) - i;
          return i;
      }
      return i;
    };
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      const int64_t h = source(p - pad.top.constant, x_.image.h);
      const int64_t w = source(q - pad.left.constant, x_.image.w);
      return inside(h, w) ? at(n, c, h, w) : pad.value;
    });
  }
  void operator()(const PixelShuffle& shuffle) {
    const int64_t f = shuffle.factor;
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      return at(n, (c * f + p % f) * f + q % f, p / f, q / f);
    });
  }
  void operator()(const PixelUnshuffle& shuffle) {
    const int64_t f = shuffle.factor;
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      return at(n, c / (f * f), p * f + c / f % f, q * f + c % f);
    });
  }
  void operator()(const Softmax& softmax) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      double sum = 0;
      for (int64_t k = 0; k < y_.c; ++k) sum += std::exp(at(n, k, p, q));
      const double log = at(n, c, p, q) - std::log(sum);
      return softmax.logarithm ? log : std::exp(log);
    });
  }
  void operator()(const Concatenate&) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) { return joined(n, c, p, q); });
  }
  void operator()(const ConcatenatePixels& concatenate) {
    int64_t first = 0;
    for (std::size_t i = 0; i < in_.size(); ++i) {
      const Size& x = sizes_[i];
      std::size_t k = 0;
      for (int64_t n = 0; n < x.n; ++n)
        for (int64_t c = 0; c < x.c; ++c)
          for (int64_t p = 0; p < x.image.h; ++p)
            for (int64_t q = 0; q < x.image.w; ++q) {
              const int64_t row = p + (concatenate.rows ? first : 0);
              const int64_t column = q + (concatenate.rows ? 0 : first);
              out_[static_cast<std::size_t>(((n * y_.c + c) * y_.image.h + row) * y_.image.w +
                                            column)] = (*in_[i])[k++];
            }
      first += concatenate.rows ? x.image.h : x.image.w;
    }
  }
  void operator()(const ExchangeChannels& exchange) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      return exchange.rows ? at(n, p, c, q) : at(n, q, p, c);
    });
  }
  void operator()(const Select& select) {
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      return joined(n, (*select.from)[static_cast<std::size_t>(c)], p, q);
    });
  }
  void operator()(const Flatten&) { out_ = *in_[0]; }
  void operator()(const Unflatten&) { out_ = *in_[0]; }
  void operator()(const ReshapePixels&) { out_ = *in_[0]; }
  void operator()(const AddPixels& add) {
    each([&](int64_t n, int64_t c, int64_t, int64_t q) {
      const int64_t i = add.behind ? q - x_.image.w : q;
      if (i >= 0 && i < add.count)
        return double{(*add.values)[static_cast<std::size_t>(i * x_.c + c)]};
      return at(n, c, 0, add.behind ? q : q - add.count);
    });
  }
  void operator()(const CombineImage& combine) {
    for (std::size_t i = 0; i < out_.size(); ++i) {
      const double x = (*in_[0])[i], v = (*combine.values)[i % combine.values->size()];
      out_[i] = combine.first ? combined(combine.how, v, x) : combined(combine.how, x, v);
    }
  }
  void operator()(const Attend& attend) {
    const Pair image = x_.image;
    const auto sides = [&](int64_t all, int64_t given) {
      if (given == 0) return all;
      return attend.dilated ? all / given : given;
    };
    const Pair side{sides(image.h, attend.window.h), sides(image.w, attend.window.w)};
    const Pair windows{image.h / side.h, image.w / side.w};
    const auto pixel = [&](int64_t window, int64_t position) {
      const int64_t a = window / windows.w, b = window % windows.w;
      const int64_t i = position / side.w, j = position % side.w;
      return attend.dilated ? (i * windows.h + a) * image.w + j * windows.w + b
                            : (a * side.h + i) * image.w + b * side.w + j;
    };
    const auto channel = [&](std::size_t operand, int64_t n, int64_t c, int64_t place) {
      const Size& size = sizes_[operand];
      return (*in_[operand])[static_cast<std::size_t>((n * size.c + c) * size.pixels() + place)];
    };
    const int64_t count = windows.h * windows.w;
    const int64_t queries = x_.pixels() / count, keys = sizes_[1].pixels() / count;
    const int64_t depth = x_.c / attend.heads, values = y_.c / attend.heads;
    for (int64_t n = 0; n < x_.n; ++n)
      for (int64_t window = 0; window < count; ++window)
        for (int64_t head = 0; head < attend.heads; ++head)
          for (int64_t query = 0; query < queries; ++query) {
            const int64_t place = pixel(window, query);
            const auto place_of = [&](int64_t key) {
              return count == 1 ? key : pixel(window, key);
            };
            std::vector<double> shares(static_cast<std::size_t>(keys));
            double most = -std::numeric_limits<double>::infinity(), sum = 0;
            for (int64_t key = 0; key < keys; ++key) {
              double score = 0;
              for (int64_t c = head * depth; c < (head + 1) * depth; ++c) {
                score += channel(0, n, c, place) * channel(1, n, c, place_of(key));
              }
              score *= attend.scale;
              if (attend.bias) {
                const ScoreBias& bias = *attend.bias;
                const int64_t w = bias.windows == 1 ? 0 : window, h = bias.heads == 1 ? 0 : head;
                score += bias.values[static_cast<std::size_t>(
                    ((w * bias.heads + h) * queries + query) * keys + key)];
              }
              shares[static_cast<std::size_t>(key)] = score;
              most = std::max(most, score);
            }
            for (double& share : shares) sum += share = std::exp(share - most);
            for (int64_t c = head * values; c < (head + 1) * values; ++c) {
              double result = 0;
              for (int64_t key = 0; key < keys; ++key) {
                result +=
                    shares[static_cast<std::size_t>(key)] / sum * channel(2, n, c, place_of(key));
              }
              out_[static_cast<std::size_t>((n * y_.c + c) * y_.pixels() + place)] = result;
            }
          }
  }

 private:
  void combine(How how) {
    const auto operand = [&](std::size_t i, int64_t n, int64_t c, int64_t p, int64_t q) {
      const Size& size = sizes_[i];
      if (size.c == 1) c = 0;
      if (size.image.h == 1) p = 0;
      if (size.image.w == 1) q = 0;
      return (*in_[i])[static_cast<std::size_t>(
          ((n * size.c + c) * size.image.h + p) * size.image.w + q)];
    };
    each([&](int64_t n, int64_t c, int64_t p, int64_t q) {
      return combined(how, operand(0, n, c, p, q), operand(1, n, c, p, q));
    });
  }
  static double combined(How how, double a, double b) {
    switch (how) {
      case How::add:
        return a + b;
      case How::subtract:
        return a - b;
      case How::multiply:
        return a * b;
      case How::divide:
        break;
      case How::maximum:
        return std::max(a, b);
      case How::minimum:
        return std::min(a, b);
    }
    return a / b;
  }
  static double reduced(Reduction reduction, double sum, double most, int64_t count) {
    if (reduction == Reduction::maximum) return most;
    return reduction == Reduction::sum ? sum : sum / static_cast<double>(count);
  }
  bool inside(int64_t h, int64_t w) const {
    return h >= 0 && w >= 0 && h < x_.image.h && w < x_.image.w;
  }
  double at(int64_t n, int64_t c, int64_t h, int64_t w) const {
    if (!inside(h, w)) return 0;
    return (*in_[0])[static_cast<std::size_t>(((n * x_.c + c) * x_.image.h + h) * x_.image.w + w)];
  }
  // Of all operands' channels, one after the other.
  double joined(int64_t n, int64_t c, int64_t p, int64_t q) const {
    std::size_t part = 0;
    for (; c >= sizes_[part].c; ++part) c -= sizes_[part].c;
    const Size& size = sizes_[part];
    return (*in_[part])[static_cast<std::size_t>(
        ((n * size.c + c) * size.image.h + p) * size.image.w + q)];
  }
  template <typename Value>
  void each(const Value& value) {
    std::size_t i = 0;
    for (int64_t n = 0; n < y_.n; ++n)
      for (int64_t c = 0; c < y_.c; ++c)
        for (int64_t p = 0; p < y_.image.h; ++p)
          for (int64_t q = 0; q < y_.image.w; ++q) out_[i++] = value(n, c, p, q);
  }

  const std::vector<const Values*>& in_;
  const Size& x_;
  const std::vector<Size>& sizes_;
  const Size& y_;
  Values out_;
};

// All values of a network that was not fused.
std::vector<Values> evaluate(const Network& network,
                             const std::vector<Size>& sizes,
                             const std::vector<Values>& inputs) {
  std::vector<Values> values = inputs;
  values.resize(sizes.size());
  for (const Instruction& each : network.instructions()) {
    std::vector<const Values*> in;
    std::vector<Size> in_sizes;
    for (const Value v : each.inputs) {
      in.push_back(&values[static_cast<std::size_t>(v)]);
      in_sizes.push_back(sizes[static_cast<std::size_t>(v)]);
    }
    const auto out = static_cast<std::size_t>(each.output);
    Reference reference(in, in_sizes, sizes[out]);
    std::visit(reference, each.layer);
    values[out] = reference.take();
  }
  return values;
}

// Networks of chance: layers that read any of the values so far.
class RandomNetwork {
 public:
  explicit RandomNetwork(std::uint32_t seed) : random_(seed) {
    const int64_t n = pick(1, 5);
    for (int64_t i = pick(1, 2); i > 0; --i) {
      network_.add_input();
      // One pixel: flattened, it stays where it is.
      const bool pixel = pick(0, 5) == 0;
      const Pair image = pixel ? Pair{1, 1} : Pair{pick(5, 14), pick(5, 19)};
      sizes_.push_back({n, pick(1, 40), image, false});
    }
    inputs_ = sizes_;
    for (Value v = 0; v < network_.inputs(); ++v) {
      if (size_of(v).pixels() == 1 && pick(0, 1) == 0) add(Flatten{}, {v});
    }
    for (int64_t wanted = pick(3, 10); wanted > 0;) wanted -= add_one();
    outputs();
  }

  const Network& network() const { return network_; }
  const std::vector<Size>& inputs() const { return inputs_; }
  int64_t pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  float value() { return std::uniform_real_distribution<float>(-1, 1)(random_); }

 private:
  // Whether the layer of chance fitted.
  bool add_one() {
    const Value x = static_cast<Value>(pick(std::max<int64_t>(0, count() - 4), count() - 1));
    const Size size = size_of(x);
    // Of inputs alone: other values differ from the reference's by rounding errors, and
    // so may their levels.
    if (x < network_.inputs() && pick(0, 3) == 0) return add_rounded(x);
    if (size.matrix && pick(0, 3) == 0) return add(normalize(size), {x});
    if (pick(0, size.matrix ? 3 : 19) == 0) return add(Softmax{pick(0, 1) == 0}, {x});
    if (size.matrix && pick(0, 3) == 0) return add(Unflatten{{pick(1, 4), pick(1, 4)}}, {x});
    if (size.matrix) return pick(0, 1) == 0 ? add(activate(), {x}) : add(linear(size), {x});
    switch (pick(0, 25)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return add(convolution(size), {x});
      case 4:
        return pick(0, 1) == 0 ? add(MaxPool{windows()}, {x}) : convolve_and_pool(x);
      case 5:
        return add(AveragePool{windows(), pick(0, 1) == 0}, {x});
      case 6:
        if (pick(0, 2) == 0) return add(AcrossChannels{reduction()}, {x});
        return add(AdaptivePool{{pick(1, 4)}, {pick(1, 4)}, reduction()}, {x});
      case 7:
        return add(activate(), {x});
      case 8:
      case 9:
        return add_to_like(x);
      case 10:
        return combine(x);
      case 11:
        if (pick(0, 1) == 0) return combine_numbers(x);
        return add(Affine{numbers(size.c), numbers(size.c), Activation::none}, {x});
      case 12:
        return pick(0, 2) == 0 ? concatenate_pixels(x) : concatenate(x);
      case 13:
        return add(normalize(size), {x});
      case 14:
        return add(Slope{numbers(size.c)}, {x});
      case 15:
        return add(group_norm(size), {x});
      case 16:
        return size.pixels() < 500 && add(upsample(size), {x});
      case 17:
        return add(pad(), {x});
      case 18:
        return add(pad(), {x}) && add(convolution(size), {count() - 1});
      case 19:
        if (size.image.h % 2 == 0 && size.image.w % 2 == 0) return add(PixelUnshuffle{2}, {x});
        return size.c % 4 == 0 && add(PixelShuffle{2}, {x});
      case 20:
      case 21:
        return attend(x);
      case 22:
        return combine_image(x);
      case 23:
        return reshape_pixels(x);
      case 24:
        return add_pixels(x);
      case 25:
        return add(ExchangeChannels{pick(0, 1) == 0}, {x});
      default:
        return pick(0, 2) == 0 && add(Flatten{}, {x});
    }
  }

  bool add(Layer layer, std::vector<Value> inputs) {
    Network tried = network_;
    tried.add(std::move(layer), std::move(inputs));
    try {
      sizes_ = infer_sizes(tried, inputs_);
    } catch (const std::invalid_argument&) {
      return false;
    }
    network_ = std::move(tried);
    return true;
  }

  bool add_rounded(Value x) {
    const Rounding rounding{Rounding::Kind::int8, 1.0f / 64, static_cast<int32_t>(pick(0, 255))};
    if (pick(0, 2) == 0) return add(Round{rounding}, {x});
    Convolve conv = convolution(size_of(x));
    const int64_t count = conv.shape.channels * conv.shape.kernel.h * conv.shape.kernel.w;
    std::vector<float> levels(conv.weight, conv.weight + conv.shape.c_out * count);
    for (std::size_t i = 0; i < levels.size(); ++i) {
      const float* row = conv.weight + static_cast<int64_t>(i) / count * count;
      const float step = conv2d::weight_step(row, count);
      levels[i] = std::nearbyint(levels[i] / step) * step;
    }
    memory_.push_back(std::move(levels));
    conv.weight = memory_.back().data();
    conv.weights = std::make_shared<conv2d::Convolution<float>>(conv.weight, conv.bias, conv.shape,
                                                                conv2d::Accuracy::direct, rounding);
    return add(conv, {x});
  }

  bool add_to_like(Value x) {
    for (Value v = count() - 1; v >= 0; --v) {
      if (v != x && size_of(v) == size_of(x) && pick(0, 1) == 0) return add(Add{}, {x, v});
    }
    if (pick(0, 3) == 0) {  // what is added has one pixel
      const Value pixel = count();
      return add(AdaptivePool{{1}, {1}}, {x}) &&
             add(convolution(size_of(x), size_of(x).c, 3, 1), {x}) &&
             add(Add{}, {pixel + 1, pixel});
    }
    // A convolution that keeps the size and something else that does, before it
    // or behind it: what is added may or may not be there when the convolution runs.
    const bool residual_first = pick(0, 1) == 0;
    const Value first = count();
    const Convolve conv = convolution(size_of(x), size_of(x).c, 3, 1);
    if (residual_first && !add(activate(), {x})) return false;
    if (!add(conv, {x})) return false;
    if (!residual_first && !add(activate(), {x})) return false;
    return pick(0, 1) == 0 ? add(Add{}, {first, first + 1}) : add(Add{}, {first + 1, first});
  }
  // Which maximum may be taken before an activation depends on the activation.
  bool convolve_and_pool(Value x) {
    const Value conv = count();
    return add(convolution(size_of(x)), {x}) && add(activate(), {conv}) &&
           add(MaxPool{windows()}, {conv + 1});
  }
  Reduction reduction() { return static_cast<Reduction>(pick(0, 2)); }
  // All of the image's rows, columns or channels, or one in place of them.
  std::optional<Value> with_one(Value x, bool row, bool column, bool channel) {
    const Pair image = size_of(x).image;
    if (row || column) {
      const AdaptivePool pool{{row ? 1 : image.h}, {column ? 1 : image.w}, reduction()};
      if (!add(pool, {x})) return {};
      x = count() - 1;
    }
    if (channel && !add(AcrossChannels{reduction()}, {x})) return {};
    return channel ? count() - 1 : x;
  }
  // With itself, or with what has one row, column or channel, or several of these; or both are
  // such, and what the one has not the other has.
  bool combine(Value x) {
    const int64_t kind = pick(0, 7);
    const auto made = with_one(x, (kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0);
    const int64_t left = pick(0, 1) == 0 ? pick(0, 7) & ~kind : 0;
    const auto other = with_one(x, (left & 1) != 0, (left & 2) != 0, (left & 4) != 0);
    if (!made || !other) return false;
    Value v = *made;
    x = *other;
    const auto how = static_cast<How>(pick(0, 5));
    if (how == How::divide) {  // by nothing near zero
      if (!add(Activate{{Activation::clamp, 0.5f, 2}}, {v})) return false;
      return add(Combine{how}, {x, count() - 1});
    }
    if (pick(0, 1) == 0) std::swap(x, v);
    return how == How::add ? add(Add{}, {x, v}) : add(Combine{how}, {x, v});
  }
  bool combine_numbers(Value x) {
    const auto how = static_cast<How>(pick(0, 5));
    const bool first = pick(0, 1) == 0;
    if (how == How::divide && !first) return false;  // by any number, zero too
    if (how == How::divide) {
      if (!add(Activate{{Activation::clamp, 0.5f, 2}}, {x})) return false;
      x = count() - 1;
    }
    return add(CombineNumbers{how, numbers(size_of(x).c), first}, {x});
  }
  bool combine_image(Value x) {
    constexpr How kHows[] = {How::add, How::subtract, How::multiply, How::maximum, How::minimum};
    const Size size = size_of(x);
    return add(CombineImage{kHows[pick(0, 4)], numbers(size.c * size.pixels()), size.image,
                            pick(0, 1) == 0},
               {x});
  }
  bool concatenate(Value x) {
    std::vector<Value> parts = {x};
    for (Value v = 0; v < count() && parts.size() < 4; ++v) {
      if (!size_of(v).matrix && size_of(v).image.h == size_of(x).image.h &&
          size_of(v).image.w == size_of(x).image.w && v != x) {
        parts.push_back(v);
      }
    }
    std::shuffle(parts.begin(), parts.end(), random_);
    if (pick(0, 1) == 0) return select(std::move(parts));
    return parts.size() > 1 && add(Concatenate{}, std::move(parts));
  }

  // Of the image and others that have its channels and either its rows or its columns.
  bool concatenate_pixels(Value x) {
    const ConcatenatePixels layer{pick(0, 1) == 0};
    std::vector<Value> parts = {x};
    for (Value v = 0; v < count() && parts.size() < 4; ++v) {
      const Size &one = size_of(x), &other = size_of(v);
      const bool fits = layer.rows ? other.image.w == one.image.w : other.image.h == one.image.h;
      if (!other.matrix && other.n == one.n && other.c == one.c && fits) parts.push_back(v);
    }
    std::shuffle(parts.begin(), parts.end(), random_);
    return add(layer, std::move(parts));
  }

  bool select(std::vector<Value> parts) {
    int64_t all = 0;
    for (const Value v : parts) all += size_of(v).c;
    auto from = std::make_shared<std::vector<int64_t>>(static_cast<std::size_t>(pick(1, 40)));
    for (int64_t& channel : *from) channel = pick(0, all - 1);
    return add(Select{std::move(from)}, std::move(parts));
  }

  int64_t divisor(int64_t number) {
    int64_t found = pick(1, number);
    while (number % found != 0) --found;
    return found;
  }

  bool reshape_pixels(Value x) {
    const int64_t pixels = size_of(x).pixels(), height = divisor(pixels);
    return add(ReshapePixels{{height}, {pixels / height}}, {x});
  }
  bool add_pixels(Value x) {
    if (size_of(x).pixels() > 500) return false;
    if (size_of(x).image.h > 1) {
      if (!add(ReshapePixels{{1}, {size_of(x).pixels()}}, {x})) return false;
      x = count() - 1;
    }
    const int64_t added = pick(1, 3);
    return add(AddPixels{numbers(added * size_of(x).c), added, pick(0, 1) == 0}, {x});
  }
  // Of queries, keys and values from x, with other values than x's or x itself.
  bool attend(Value x) {
    const Size size = size_of(x);
    if (size.pixels() > 300) return false;
    const int64_t heads = divisor(pick(0, 1) == 0 ? pick(1, 4) : size.c);
    const int64_t depth = pick(0, 1) == 0 ? 16 * pick(1, 2) : pick(1, 20);
    const auto channels = [&](Value from, int64_t c) {
      return add(convolution(size_of(from), c, 1, 0), {from}) ? count() - 1 : -1;
    };
    Value q = x, from = x;
    Attend layer{heads, value() / 8};
    if (pick(0, 2) == 0) {  // of other pixels
      if (!add(AdaptivePool{{pick(1, 9)}, {pick(1, 9)}}, {x})) return false;
      from = count() - 1;
    } else if (pick(0, 1) == 0) {
      layer.window = {divisor(size.image.h), divisor(size.image.w)};
      if (pick(0, 3) == 0) layer.window.w = 0;
      layer.dilated = pick(0, 1) == 0;
    }
    Value k = from, v = from;
    if (size.c % heads != 0 || pick(0, 1) == 0) {
      q = channels(x, heads * depth);
      k = channels(from, heads * depth);
    }
    if (size.c % heads != 0 || pick(0, 1) == 0) v = channels(from, heads * pick(1, 20));
    // Sums of many large numbers would be compared where one tells all.
    for (Value* operand : {&q, &k}) {
      if (!add(Activate{Activation::tanh}, {*operand})) return false;
      *operand = count() - 1;
    }
    const Pair side = window_of(layer, size.image);
    const int64_t windows = size.pixels() / (side.h * side.w);
    if (pick(0, 1) == 0) {
      const int64_t many = pick(0, 1) == 0 ? 1 : windows, each = pick(0, 1) == 0 ? 1 : heads;
      const int64_t scores = side.h * side.w * size_of(k).pixels() / windows;
      layer.bias =
          std::make_shared<ScoreBias>(ScoreBias{many, each, *numbers(many * each * scores)});
    }
    return add(layer, {q, k, v});
  }

  Activate activate() {
    auto kind = static_cast<Activation::Kind>(pick(1, Activation::kLast));
    if (kind == Activation::power) return {{kind, 2}};
    // Errors grow there.
    if (kind == Activation::exp || kind == Activation::log) kind = Activation::erf;
    return {{kind, value() / 2, 0.5f + (value() + 1) / 2}};
  }
  GroupNorm group_norm(const Size& size) {
    std::vector<int64_t> divisors;
    for (int64_t groups = 1; groups <= size.c; ++groups) {
      if (size.c % groups == 0) divisors.push_back(groups);
    }
    const auto which = static_cast<std::size_t>(pick(0, static_cast<int64_t>(divisors.size()) - 1));
    return {divisors[which], numbers(size.c), numbers(size.c), 0.1f};
  }
  Upsample upsample(const Size& size) {
    const auto side = [&](int64_t now) { return Measure{pick(1, 2 * now + 2)}; };
    return {static_cast<Upsample::Way>(pick(0, 2)), side(size.image.h), side(size.image.w), {}, {}};
  }
  Pad pad() {
    const auto kind = static_cast<Pad::Kind>(pick(0, 3));
    const auto some = [&] { return Measure{pick(kind == Pad::Kind::constant ? -1 : 0, 2)}; };
    return {kind, some(), some(), some(), some(), pick(0, 1) == 0 ? 0 : value()};
  }
  // An epsilon that keeps rounding errors of few channels, nearly alike, from growing.
  Normalize normalize(const Size& size) { return {numbers(size.c), numbers(size.c), 0.1f}; }
  Windows windows() {
    const Pair size{pick(1, 3), pick(1, 3)};
    return {size,
            {pick(1, 3), pick(1, 3)},
            {pick(0, size.h / 2), pick(0, size.w / 2)},
            pick(0, 1) == 0};
  }
  Linear linear(const Size& size) {
    const int64_t out = pick(1, 37);
    return {weights(out * size.c, size.c), weights(out, 1), size.c, out, Activation::none};
  }
  Convolve convolution(const Size& size, int64_t c_out = 0, int64_t side = 0, int64_t padding = 0) {
    Convolve conv{};
    const bool depthwise = c_out == 0 && pick(0, 4) == 0;
    const bool halves = !depthwise && c_out == 0 && size.c % 2 == 0 && pick(0, 3) == 0;
    const int64_t groups = depthwise ? size.c : halves ? 2 : 1;
    const int64_t out = c_out > 0 ? c_out : depthwise ? size.c : groups * pick(1, 24);
    const Pair kernel = side > 0 ? Pair{side, side} : Pair{pick(1, 5), pick(1, 5)};
    conv.shape = {out, size.c / groups, kernel, groups};
    conv.weight =
        weights(out * size.c / groups * kernel.h * kernel.w, size.c / groups * kernel.h * kernel.w);
    conv.bias = pick(0, 3) == 0 ? nullptr : weights(out, 1);
    const bool plain = side > 0;
    conv.stride = plain ? Pair{1, 1} : Pair{pick(1, 2), pick(1, 2)};
    conv.dilation = plain ? Pair{1, 1} : Pair{pick(1, 2), pick(1, 2)};
    conv.padding = plain ? Pair{padding, padding} : Pair{pick(0, 2), pick(0, 2)};
    if (!plain && pick(0, 7) == 0) {  // most of a kernel outside of the image
      conv.dilation = {pick(1, 20), pick(1, 20)};
      conv.padding = {conv.dilation.h * kernel.h / 2, conv.dilation.w * kernel.w / 2};
    }
    conv.weights = std::make_shared<conv2d::Convolution<float>>(conv.weight, conv.bias, conv.shape,
                                                                conv2d::Accuracy::direct);
    return conv;
  }
  const float* weights(int64_t count, int64_t fan_in) {
    memory_.emplace_back(static_cast<std::size_t>(count));
    const float scale = 1.7f / std::sqrt(static_cast<float>(fan_in));
    for (float& weight : memory_.back()) weight = value() * scale;
    return memory_.back().data();
  }
  std::shared_ptr<const std::vector<float>> numbers(int64_t count) {
    auto made = std::make_shared<std::vector<float>>(static_cast<std::size_t>(count));
    for (float& number : *made) number = value() + 0.5f;
    return made;
  }

  void outputs() {
    std::vector<Value> found = {count() - 1};
    const Value other = static_cast<Value>(pick(0, count() - 1));
    if (other >= network_.inputs() && other != found[0]) found.push_back(other);
    network_.set_outputs(std::move(found));
  }

  Value count() const { return static_cast<Value>(sizes_.size()); }
  const Size& size_of(Value v) const { return sizes_[static_cast<std::size_t>(v)]; }

  std::mt19937 random_;
  std::deque<std::vector<float>> memory_;
  Network network_;
  std::vector<Size> sizes_, inputs_;
};

// Two threads, and as many ranges as there may be.
class Pieces final : public convship::kernels::Parallel {
 public:
  int width() const override { return 2; }
  void run(int64_t count, int64_t, convship::kernels::RangeBody body) const override {
    std::thread other([&] {
      for (int64_t i = 1; i < count; i += 2) body(i, i + 1);
    });
    for (int64_t i = 0; i < count; i += 2) body(i, i + 1);
    other.join();
  }
};

// A plan's call with memory of its own, which has a fence on both sides.
class Call {
 public:
  Call(const Network& network,
       const std::vector<Size>& inputs,
       const std::optional<MicroBatch>& micro_batch = {})
      : plan_(network, inputs, micro_batch) {
    memory_.resize(plan_memory() + 2 * kFence + 16, kPoison);
    void* begin = memory_.data() + kFence;
    std::size_t space = memory_.size() * sizeof(float);
    begin_ = static_cast<float*>(std::align(64, 1, begin, space));
  }

  std::vector<std::vector<float>> run(const std::vector<std::vector<float>>& inputs,
                                      const convship::kernels::Parallel& parallel) {
    std::vector<conv2d::View<const float>> views;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Size& size = plan_.inputs()[i];
      views.push_back(conv2d::nchw(inputs[i].data(), size.c, size.image));
    }
    std::vector<std::vector<float>> outputs;
    std::vector<float*> places;
    for (const Size& size : plan_.outputs()) {
      outputs.emplace_back(Reference::elements(size) + kFence, kPoison);
      places.push_back(outputs.back().data());
    }
    plan_.run(views, places, {begin_, plan_memory()}, parallel);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const std::size_t size = outputs[i].size() - kFence;
      fences_hold_ = fences_hold_ && is_poison(outputs[i].data() + size, kFence);
      outputs[i].resize(size);
    }
    return outputs;
  }

  // As before the first call, and behind it where no value was written.
  bool memory_has_nan() const {
    return std::any_of(begin_, begin_ + plan_memory(),
                       [](float value) { return std::isnan(value); });
  }

  bool fences_hold() const {
    const float* end = begin_ + plan_memory();
    return fences_hold_ && is_poison(memory_.data(), begin_ - memory_.data()) &&
           is_poison(end, memory_.data() + memory_.size() - end);
  }

 private:
  static constexpr std::size_t kFence = 64;
  static constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
  static bool is_poison(const float* from, std::ptrdiff_t count) {
    return std::all_of(from, from + count, [](float value) { return std::isnan(value); });
  }

  std::size_t plan_memory() const {
    return static_cast<std::size_t>(plan_.memory(Pieces().width()));
  }

  Plan plan_;
  std::vector<float> memory_;
  float* begin_;
  bool fences_hold_ = true;
};

// Empty, or what is wrong.
std::string compare(const std::vector<float>& actual, const Values& expected) {
  // Where values around 1 cancel, as in norms of values that are alike, their rounding is left.
  double most = 5e-2;
  for (const double value : expected) most = std::max(most, std::abs(value));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!(std::abs(actual[i] - expected[i]) <= 2e-5 * most)) {
      std::ostringstream wrong;
      wrong << "element " << i << " of " << expected.size() << " is " << actual[i] << ", expected "
            << expected[i];
      return wrong.str();
    }
  }
  return {};
}

std::string layers_of(const Network& network) {
  std::string text;
  for (const Instruction& each : network.instructions()) {
    text += (text.empty() ? "" : ", ") + std::string(layer_name(each.layer));
  }
  return text;
}

void check_network(std::uint32_t seed) {
  RandomNetwork made(seed);
  std::vector<std::vector<float>> inputs;
  std::vector<Values> exact;
  for (const Size& size : made.inputs()) {
    inputs.emplace_back(Reference::elements(size));
    for (float& value : inputs.back()) value = made.value();
    exact.emplace_back(inputs.back().begin(), inputs.back().end());
  }
  const auto values = evaluate(made.network(), infer_sizes(made.network(), made.inputs()), exact);
  Network fused = made.network();
  fused.fuse(made.inputs());
  for (const Network& network : {made.network(), fused}) {
    INFO("seed " << seed << ": " << layers_of(network));
    Call call(network, made.inputs());
    const auto outputs = call.run(inputs, convship::kernels::Serial());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      CHECK(compare(outputs[i], values[static_cast<std::size_t>(network.outputs()[i])]) == "");
    }
    // Neither what memory held before nor threads change a bit.
    CHECK(call.run(inputs, Pieces()) == outputs);
    CHECK(call.fences_hold());
    // Nor does it matter how many layers take how many images at a time.
    for (int i = 0; i < 3; ++i) {
      const MicroBatch few{
          static_cast<int>(made.pick(1, static_cast<int64_t>(network.instructions().size()))),
          made.pick(1, made.inputs()[0].n)};
      Call parts(network, made.inputs(), few);
      CHECK(parts.run(inputs, convship::kernels::Serial()) == outputs);
      CHECK(parts.run(inputs, Pieces()) == outputs);
      CHECK(parts.fences_hold());
    }
  }
}

// By a plan of nothing else, on the active instruction set.
std::vector<float> activated_by_plan(Activation activation, const std::vector<float>& values) {
  Network network;
  const Value x = network.add_input();
  network.set_outputs({network.add(Activate{activation}, {x})});
  Call call(network, {{1, static_cast<int64_t>(values.size()), {1, 1}}});
  return call.run({values}, convship::kernels::Serial())[0];
}

}  // namespace

TEST_CASE("networks of chance answer as their layers do in float64, on every instruction set") {
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    CAPTURE(isa);
    for (std::uint32_t seed = 1; seed <= 400; ++seed) check_network(seed);
  }
  convship::set_isa(convship::available_isas().front());
}

TEST_CASE("activations pass NaN on, wherever in a vector it is") {
  constexpr int64_t kChannels = 37;
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    for (int kind = 0; kind <= Activation::kLast; ++kind) {
      const Activation activation(static_cast<Activation::Kind>(kind), -0.5f, 0.5f);
      for (int64_t at = 0; at < kChannels; ++at) {
        std::vector<float> values(kChannels, 0.5f);
        values[static_cast<std::size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
        const auto y = activated_by_plan(activation, values);
        for (int64_t i = 0; i < kChannels; ++i) {
          CAPTURE(isa);
          CAPTURE(kind);
          CHECK(std::isnan(y[static_cast<std::size_t>(i)]) == (i == at));
        }
      }
    }
  }
  convship::set_isa(convship::available_isas().front());
}

// The kernels have an exponential of their own: between its ends, around both of them,
// and where the integer part of its exponent changes.
TEST_CASE("sigmoid and silu are those of float64 to a few units in the last place") {
  constexpr int64_t kChannels = 1 << 16;
  std::vector<float> values(kChannels);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = (static_cast<float>(i) - kChannels / 2) * (88.0f / (kChannels / 2));
  }
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    for (const Activation activation : {Activation::sigmoid, Activation::silu}) {
      const auto y = activated_by_plan(activation, values);
      double worst = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (std::abs(values[i]) > 87) continue;  // see the next check
        const double exact = activated(activation, values[i]);
        worst = std::max(worst, std::abs(y[i] - exact) / std::max(std::abs(exact), 1e-30));
      }
      CAPTURE(isa);
      CHECK(worst < 4 * 0x1p-24);
      CHECK(std::abs(y.front()) < 1e-35);
      // Sigmoid vanishes, whatever it is multiplied by.
      const auto far = activated_by_plan(activation, {-1e38f, -1e4f, -200});
      CHECK(std::all_of(far.begin(), far.end(), [](float v) { return v == 0; }));
      CHECK(y.back() == (activation == Activation::silu ? values.back() : 1.0f));
    }
  }
  convship::set_isa(convship::available_isas().front());
}

// Of x, as torch's own: far below zero the result is a difference of numbers near x.
TEST_CASE("gelu is that of float64 to a few units in the last place of its input") {
  constexpr int64_t kChannels = 1 << 16;
  std::vector<float> values(kChannels);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = (static_cast<float>(i) - kChannels / 2) * (12.0f / (kChannels / 2));
  }
  values.front() = -1e30f;
  values.back() = 1e30f;
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    for (const Activation activation : {Activation::gelu, Activation::gelu_tanh}) {
      const auto y = activated_by_plan(activation, values);
      double worst = 0;
      for (std::size_t i = 1; i + 1 < values.size(); ++i) {
        const double exact = activated(activation, values[i]);
        worst = std::max(worst, std::abs(y[i] - exact) / std::max(std::abs(values[i]), 1e-30f));
      }
      CAPTURE(isa);
      CHECK(worst < 4 * 0x1p-24);
      CHECK(std::abs(y.front()) < 1e-6);
      CHECK(y.back() == values.back());
    }
  }
  convship::set_isa(convship::available_isas().front());
}

// Of the result: near zero they are near x, or a part of it, and must not lose its digits.
TEST_CASE("elu, tanh and mish are those of float64 to a few units in the last place") {
  constexpr int64_t kChannels = 1 << 16;
  std::vector<float> values(kChannels);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool tiny = i % 2 == 0;
    values[i] =
        (static_cast<float>(i) - kChannels / 2) * ((tiny ? 1e-3f : 60.0f) / (kChannels / 2));
  }
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    for (const Activation activation :
         {Activation{Activation::elu, 1.7f, 1.1f}, Activation{Activation::tanh},
          Activation{Activation::mish}}) {
      const auto y = activated_by_plan(activation, values);
      double worst = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double exact = activated(activation, values[i]);
        worst = std::max(worst, std::abs(y[i] - exact) / std::max(std::abs(exact), 1e-30));
      }
      CAPTURE(isa);
      CAPTURE(activation.kind);
      CHECK(worst < 6 * 0x1p-24);
    }
  }
  convship::set_isa(convship::available_isas().front());
}

// Of the result; of logarithms near 1, too. At the ends of the range and beyond them they are
// what float64's are when rounded.
TEST_CASE("exp, log, erf and powers are those of float64 to a few units in the last place") {
  constexpr int64_t kChannels = 1 << 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  struct Span {
    Activation activation;
    float low, high;
    double units;
  };
  const auto power = [](float a) { return Activation{Activation::power, a}; };
  const std::vector<Span> spans{
      {Activation::exp, -87, 88.7f, 4},
      {Activation::exp, -1e-3f, 1e-3f, 4},
      {Activation::log, 1e-38f, 4, 6},
      {Activation::log, 0.999f, 1.001f, 6},
      {Activation::log, 1, 3e38f, 6},
      {Activation::erf, -6, 6, 6},
      {Activation::erf, -1e-3f, 1e-3f, 6},
      {power(3), 1e-6f, 50, 6},
      {power(3), -50, 50, 6},
      {power(1.0f / 3), 1e-6f, 1e6f, 6},
      {power(-2), 0.1f, 100, 6},
      {power(0.5f), 0, 1e30f, 4},
      {power(-0.5f), 1e-30f, 1e30f, 4},
      {power(2.7f), 1e-6f, 1e6f, 10},
      {power(-12), -40, 40, 30},
      {power(11), -40, 40, 30},
      {power(40), 0.5f, 2, 100},
  };
  const std::vector<float> ends{0, -0.0f, kInfinity, -kInfinity, 1e-40f, -2.5f, 1, 200, -200};
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    for (const Span& span : spans) {
      std::vector<float> values(kChannels);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double part = static_cast<double>(i) / (kChannels - 1);
        values[i] =
            static_cast<float>(span.low + part * (static_cast<double>(span.high) - span.low));
      }
      const auto y = activated_by_plan(span.activation, values);
      double worst = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double exact = activated(span.activation, values[i]);
        if (std::abs(exact) > 1e38 || std::abs(exact) < 1e-37) continue;
        worst = std::max(worst, std::abs(y[i] - exact) / std::abs(exact));
      }
      CAPTURE(isa);
      CAPTURE(span.activation.kind);
      CAPTURE(span.activation.a);
      CHECK(worst < span.units * 0x1p-24);
      const auto at_ends = activated_by_plan(span.activation, ends);
      for (std::size_t i = 0; i < ends.size(); ++i) {
        const auto exact = static_cast<float>(activated(span.activation, ends[i]));
        CAPTURE(ends[i]);
        CAPTURE(exact);
        CAPTURE(at_ends[i]);
        if (std::isnan(exact) || std::isinf(exact) || exact == 0) {
          CHECK((std::isnan(exact) ? std::isnan(at_ends[i]) : at_ends[i] == exact));
        } else {
          CHECK(std::abs(at_ends[i] - exact) <= 1e-5 * std::abs(exact));
        }
      }
    }
  }
  convship::set_isa(convship::available_isas().front());
}

TEST_CASE("sums of group norm are close on images of many pixels, far from zero") {
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    Network network;
    const Value x = network.add_input();
    const auto ones = std::make_shared<const std::vector<float>>(24, 1.0f);
    const auto zeros = std::make_shared<const std::vector<float>>(24, 0.0f);
    network.set_outputs({network.add(GroupNorm{3, ones, zeros, 1e-5f}, {x})});
    const Size size{1, 24, {300, 301}, false};
    std::vector<float> values(Reference::elements(size));
    std::mt19937 random(1);
    std::normal_distribution<float> normal(100, 1);
    for (float& value : values) value = normal(random);
    const auto exact =
        evaluate(network, infer_sizes(network, {size}), {Values(values.begin(), values.end())});
    Call call(network, {size});
    const auto y = call.run({values}, convship::kernels::Serial())[0];
    double worst = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      worst = std::max(worst, std::abs(y[i] - exact[1][i]));
    CAPTURE(isa);
    CHECK(worst < 2e-5);  // of values to 6; x itself is rounded to 8e-6
  }
  convship::set_isa(convship::available_isas().front());
}

TEST_CASE("measures see sizes of values that fusing has merged, and refuse by them") {
  const std::vector<float> weight(4 * 3 * 9, 0.1f);
  Network network;
  const Value x = network.add_input();
  Convolve conv{};
  conv.shape = {4, 3, {3, 3}, 1};
  conv.weight = weight.data();
  conv.bias = nullptr;
  conv.stride = conv.dilation = {1, 1};
  conv.padding = {1, 1};
  conv.weights = std::make_shared<conv2d::Convolution<float>>(weight.data(), nullptr, conv.shape,
                                                              conv2d::Accuracy::direct);
  const Value a = network.add(conv, {x});
  const Value pooled = network.add(MaxPool{{{2, 2}, {2, 2}}}, {a});
  const auto side = [a](bool high) {
    return Measure{0, [a, high](const std::vector<Size>& sizes) {
                     const Pair image = sizes[static_cast<std::size_t>(a)].image;
                     return high ? image.h : image.w;
                   }};
  };
  Upsample back{Upsample::Way::nearest, side(true), side(false), {}, {}};
  network.set_outputs({network.add(back, {pooled})});
  network.require({0, [x](const std::vector<Size>& sizes) {
                     return int64_t{sizes[static_cast<std::size_t>(x)].n < 3};
                   }});
  network.fuse({{2, 3, {7, 9}}});
  CHECK(network.instructions().size() == 2);
  const Plan plan(network, {{2, 3, {7, 9}}});
  CHECK(plan.outputs()[0] == Size{2, 4, {7, 9}, false});
  CHECK_THROWS_AS(Plan(network, {{3, 3, {7, 9}}}), std::invalid_argument);
}

TEST_CASE("networks whose sizes do not fit are refused") {
  Network network;
  const Value x = network.add_input();
  network.add(AdaptivePool{{1}, {1}}, {x});
  CHECK_THROWS_AS(Plan(network, {{1, 3, {1, 1}, true}}), std::invalid_argument);
  Network sum;
  const Value a = sum.add_input(), b = sum.add_input();
  sum.add(Add{}, {a, b});
  CHECK_THROWS_AS(Plan(sum, {{1, 3, {4, 4}}, {1, 3, {4, 5}}}), std::invalid_argument);
}

// A 1x1 layer between images of `side` pixels, then one weight for each feature and class.
TEST_CASE("a batch whose images leave the cache goes through the first layers in parts") {
  const auto network_of = [](int64_t side, std::vector<float>& weights) {
    Convolve conv{};
    conv.shape = {32, 32, {1, 1}, 1};
    conv.stride = conv.dilation = {1, 1};
    constexpr int64_t kClasses = 4096;
    weights.assign(static_cast<std::size_t>(32 * 32 * kClasses), 0.5f);
    conv.weight = weights.data();
    conv.weights = std::make_shared<conv2d::Convolution<float>>(weights.data(), nullptr, conv.shape,
                                                                conv2d::Accuracy::direct);
    Network network;
    Value x = network.add(conv, {network.add(conv, {network.add_input()})});
    x = network.add(Flatten{}, {network.add(AdaptivePool{{8}, {4}}, {x})});
    network.set_outputs({network.add(Linear{weights.data(), nullptr, 1024, kClasses}, {x})});
    return std::pair(network, std::vector<Size>{{16, 32, {side, side}}});
  };
  std::vector<float> weights;
  const auto [large, sizes] = network_of(256, weights);
  const MicroBatch parts = choose_micro_batch(large, infer_sizes(large, sizes));
  CHECK(parts.instructions >= 3);  // both layers and the pool
  CHECK(parts.instructions < 5);   // not the one of large weights
  CHECK(parts.images < 16);
  // What only they need has no room for images that wait.
  const int64_t whole = Plan(large, sizes, MicroBatch{}).memory(1);
  CHECK(Plan(large, sizes).memory(1) < whole / 4);
  CHECK(Plan(large, sizes).memory(2) > Plan(large, sizes).memory(1));

  const auto [small, few] = network_of(8, weights);
  CHECK(choose_micro_batch(small, infer_sizes(small, few)).instructions == 0);
  CHECK(choose_micro_batch(large, infer_sizes(large, {{1, 32, {256, 256}}})).instructions == 0);
}

namespace {

std::vector<float> random_values(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> made(count);
  for (float& value : made) value = uniform(random);
  return made;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Attention {
  Attend layer;
  Size q, k, v;

  Network network() const {
    Network made;
    const Value first = made.add_input(), second = made.add_input(), third = made.add_input();
    made.set_outputs({made.add(layer, {first, second, third})});
    return made;
  }
  std::vector<Size> sizes() const { return {q, k, v}; }
  std::vector<std::vector<float>> inputs() const {
    std::vector<std::vector<float>> made;
    for (const Size& size : sizes()) {
      made.push_back(
          random_values(Reference::elements(size), static_cast<std::uint32_t>(made.size())));
    }
    return made;
  }
  std::vector<float> run(const std::vector<std::vector<float>>& in) const {
    Call call(network(), sizes());
    return call.run(in, convship::kernels::Serial())[0];
  }
  Values exact(const std::vector<std::vector<float>>& in) const {
    std::vector<Values> wide;
    for (const auto& each : in) wide.emplace_back(each.begin(), each.end());
    return evaluate(network(), infer_sizes(network(), sizes()), wide).back();
  }
};

std::shared_ptr<const ScoreBias> bias_of(int64_t windows, int64_t heads, int64_t scores) {
  const auto count = static_cast<std::size_t>(windows * heads * scores);
  return std::make_shared<const ScoreBias>(ScoreBias{windows, heads, random_values(count, 9)});
}

// Of each image's, and of those of one image by itself, the same bits with any threads.
void check_attention(const Attention& attention) {
  const auto in = attention.inputs();
  const auto y = attention.run(in);
  CHECK(compare(y, attention.exact(in)) == "");
  Call call(attention.network(), attention.sizes());
  CHECK(call.run(in, Pieces())[0] == y);
  CHECK(call.fences_hold());
  Attention one = attention;
  for (Size* size : {&one.q, &one.k, &one.v}) size->n = 1;
  const std::size_t each = y.size() / static_cast<std::size_t>(attention.q.n);
  for (std::size_t n = 0; n < static_cast<std::size_t>(attention.q.n); ++n) {
    std::vector<std::vector<float>> part;
    for (const auto& all : in) {
      const auto size = static_cast<std::ptrdiff_t>(all.size()) / attention.q.n;
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(n) * size;
      part.emplace_back(begin, begin + size);
    }
    const auto begin = y.begin() + static_cast<std::ptrdiff_t>(n * each);
    const std::vector<float> expected(begin, begin + static_cast<std::ptrdiff_t>(each));
    CHECK(one.run(part) == expected);
    Call alone(one.network(), one.sizes());
    CHECK(alone.run(part, Pieces())[0] == expected);
  }
}

}  // namespace

TEST_CASE("attention is that of float64, in windows and between images of other sizes") {
  const std::vector<Attention> cases = {
      {{3, 0.125f}, {2, 48, {1, 197}}, {2, 48, {1, 197}}, {2, 48, {1, 197}}},
      {{2, 0.5f}, {3, 20, {5, 7}}, {3, 20, {3, 3}}, {3, 14, {3, 3}}},  // depths of 10 and 7
      {{1, 0.3f}, {2, 17, {3, 3}}, {2, 17, {11, 9}}, {2, 64, {11, 9}}},
      {{4, 0.2f}, {1, 64, {1, 1}}, {1, 64, {7, 5}}, {1, 132, {7, 5}}},
      {{2, 0.2f}, {1, 32, {4, 4}}, {1, 32, {1, 1}}, {1, 32, {1, 1}}},  // one key
      {{3, 0.2f, {7, 7}}, {2, 96, {14, 21}}, {2, 96, {14, 21}}, {2, 96, {14, 21}}},
      {{3, 0.2f, {2, 3}, true}, {2, 96, {14, 21}}, {2, 96, {14, 21}}, {2, 96, {14, 21}}},
      {{2, 0.2f, {0, 2}}, {2, 12, {3, 8}}, {2, 12, {3, 8}}, {2, 12, {3, 8}}},
      {{2, 0.2f, {3, 0}, true}, {2, 12, {6, 4}}, {2, 12, {6, 4}}, {2, 12, {6, 4}}},
      {{1, 0.05f}, {1, 32, {1, 1100}}, {1, 32, {1, 1100}}, {1, 16, {1, 1100}}},
      {{2, 0.2f, {3, 4}, false, bias_of(4, 2, 144)},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}}},
      {{2, 0.2f, {2, 2}, true, bias_of(4, 2, 144)},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}}},
      {{2, 0.2f, {3, 4}, false, bias_of(1, 2, 144)},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}}},
      {{2, 0.2f, {3, 4}, false, bias_of(4, 1, 144)},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}},
       {2, 32, {6, 8}}},
      {{2, 0.2f, {0, 0}, false, bias_of(1, 1, 8 * 11)},
       {2, 32, {2, 4}},
       {2, 32, {1, 11}},
       {2, 32, {1, 11}}},
  };
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      CAPTURE(isa);
      CAPTURE(i);
      check_attention(cases[i]);
    }
  }
  convship::set_isa(convship::available_isas().front());
}

TEST_CASE("attention sees nothing of what a mask hides, and is NaN where it hides all") {
  constexpr int64_t kPositions = 21, kChannels = 32;
  const Size size{1, kChannels, {1, kPositions}};
  std::vector<float> mask(kPositions * kPositions, 0.0f);
  for (int64_t query = 0; query < kPositions; ++query) {
    for (int64_t key = query + 1; key < kPositions; ++key) {
      mask[static_cast<std::size_t>(query * kPositions + key)] = -kInfinity;
    }
  }
  const auto attention = [&](const std::vector<float>& values) {
    const auto bias = std::make_shared<const ScoreBias>(ScoreBias{1, 1, values});
    return Attention{{2, 0.3f, {0, 0}, false, bias}, size, size, size};
  };
  const auto at = [&](const std::vector<float>& y, int64_t c, int64_t position) {
    return y[static_cast<std::size_t>(c * kPositions + position)];
  };
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    CAPTURE(isa);
    const Attention causal = attention(mask);
    auto in = causal.inputs();
    const auto y = causal.run(in);
    CHECK(compare(y, causal.exact(in)) == "");
    for (int64_t c = 0; c < kChannels; ++c) CHECK(at(y, c, 0) == at(in[2], c, 0));

    // Not even a share too small to tell elsewhere, of what only the last query sees.
    auto large = in;
    for (int64_t c = 0; c < kChannels; ++c) {
      large[2][static_cast<std::size_t>((c + 1) * kPositions - 1)] = 1e38f;
    }
    const auto without = causal.run(large);
    for (int64_t c = 0; c < kChannels; ++c) {
      for (int64_t position = 0; position + 1 < kPositions; ++position) {
        CHECK(at(without, c, position) == at(y, c, position));
      }
    }

    std::vector<float> none = mask;
    std::fill_n(none.begin() + 5 * kPositions, kPositions, -kInfinity);
    const auto hidden = attention(none).run(in);
    for (int64_t c = 0; c < kChannels; ++c) {
      for (int64_t position = 0; position < kPositions; ++position) {
        CHECK(std::isnan(at(hidden, c, position)) == (position == 5));
        if (position != 5) CHECK(at(hidden, c, position) == at(y, c, position));
      }
    }

    // NaN in a key of the second head, wherever it is: all that see it, and no others.
    for (int64_t key = 0; key < kPositions; ++key) {
      auto with_nan = in;
      with_nan[1][static_cast<std::size_t>(17 * kPositions + key)] =
          std::numeric_limits<float>::quiet_NaN();
      const auto reached = attention(mask).run(with_nan);
      for (int64_t position = 0; position < kPositions; ++position) {
        // -inf + NaN is NaN: a mask hides no such score, as in torch.
        CHECK(!std::isnan(at(reached, 0, position)));
        CHECK(std::isnan(at(reached, 16, position)));
      }
    }
    // NaN in a query.
    in[0][3] = std::numeric_limits<float>::quiet_NaN();
    const auto of_query = attention(mask).run(in);
    for (int64_t position = 0; position < kPositions; ++position) {
      CHECK(std::isnan(at(of_query, 0, position)) == (position == 3));
      CHECK(!std::isnan(at(of_query, 16, position)));
    }
    // Scores that no exponential of float32 can hold.
    for (float& value : in[0]) value = 100;
    for (float& value : in[1]) value *= 100;
    CHECK(compare(attention(mask).run(in), attention(mask).exact(in)) == "");
  }
  convship::set_isa(convship::available_isas().front());
}

// Vectors of channels go to the end of a block: what pads it is computed with, and dropped.
TEST_CASE("channels beyond those of attention and of what adds constants are finite") {
  const Size size{2, 10, {1, 30}};
  const auto in = random_values(Reference::elements(size), 5);
  const auto values = std::make_shared<const std::vector<float>>(random_values(20, 3));
  const auto image = std::make_shared<const std::vector<float>>(random_values(300, 4));
  for (const std::string& isa : convship::available_isas()) {
    convship::set_isa(isa);
    if (!has_loops()) continue;
    CAPTURE(isa);
    for (const Layer& layer : {Layer(Attend{2, 0.5f}), Layer(AddPixels{values, 2}),
                               Layer(CombineImage{How::add, image, size.image}),
                               Layer(CombineImage{How::multiply, image, size.image})}) {
      CAPTURE(layer_name(layer));
      Network network;
      const Value x = network.add_input();
      const bool attends = std::holds_alternative<Attend>(layer);
      const auto operands = static_cast<std::size_t>(attends ? 3 : 1);
      network.set_outputs({network.add(layer, std::vector<Value>(operands, x))});
      Call call(network, {size}, MicroBatch{});
      CHECK(call.memory_has_nan());
      call.run({in}, convship::kernels::Serial());
      CHECK(!call.memory_has_nan());
    }
  }
  convship::set_isa(convship::available_isas().front());
}

TEST_CASE("reshaped pixels lie where they were, also those of inputs and outputs") {
  const Size size{3, 18, {4, 6}};
  const auto in = random_values(Reference::elements(size), 1);
  Network network;
  const Value x = network.add_input();
  const Value row = network.add(ReshapePixels{{1}, {24}}, {x});
  const Value other = network.add(ReshapePixels{{8}, {3}}, {row});
  const Value both =
      network.add(Concatenate{}, {other, network.add(Activate{Activation::relu}, {other})});
  const Value last = network.add(ReshapePixels{{2}, {12}}, {both});
  network.set_outputs({last, row, x});
  const auto exact =
      evaluate(network, infer_sizes(network, {size}), {Values(in.begin(), in.end())});
  for (const int images : {1, 2, 3}) {
    Call call(network, {size}, MicroBatch{3, images});
    const auto y = call.run({in}, convship::kernels::Serial());
    CHECK(compare(y[0], exact[static_cast<std::size_t>(last)]) == "");
    CHECK(y[1] == in);
    CHECK(y[2] == in);
    CHECK(call.fences_hold());
  }
}

TEST_CASE("fusing leaves what follows attention to layers of their own") {
  const Size size{2, 16, {4, 4}};
  Network network;
  const Value x = network.add_input();
  const Value seen = network.add(Attend{1, 0.5f}, {x, x, x});
  const Value sum = network.add(Add{}, {seen, x});
  network.set_outputs({network.add(Activate{Activation::abs}, {sum})});
  const auto in = random_values(Reference::elements(size), 2);
  const auto exact =
      evaluate(network, infer_sizes(network, {size}), {Values(in.begin(), in.end())});
  network.fuse({size});
  CHECK(layers_of(network) == "attention, add");
  Call call(network, {size});
  CHECK(compare(call.run({in}, convship::kernels::Serial())[0], exact.back()) == "");

  Network alone;
  const Value input = alone.add_input();
  alone.set_outputs(
      {alone.add(Activate{Activation::abs}, {alone.add(Attend{1, 0.5f}, {input, input, input})})});
  alone.fuse({size});
  CHECK(layers_of(alone) == "attention, activation");
}

TEST_CASE("attention and layers of pixels that cannot take their inputs are refused") {
  const auto why = [](const Layer& layer, const std::vector<Size>& sizes) -> std::string {
    Network network;
    std::vector<Value> inputs;
    for (std::size_t i = 0; i < sizes.size(); ++i) inputs.push_back(network.add_input());
    network.add(layer, inputs);
    try {
      infer_sizes(network, sizes);
    } catch (const std::invalid_argument& refusal) {
      return refusal.what();
    }
    return "";
  };
  const Size x{2, 12, {4, 6}}, row{2, 12, {1, 6}}, matrix{2, 12, {1, 1}, true};
  CHECK(why(Attend{3, 1}, {x, x, x}) == "");
  CHECK(why(Attend{3, 1}, {row, x, x}) == "");
  CHECK(why(Attend{3, 1, {2, 3}}, {x, x, x}) == "");
  CHECK(why(Attend{3, 1}, {matrix, x, x}) == "attention: needs images, got a matrix");
  CHECK(why(Attend{3, 1}, {x, matrix, matrix}) == "attention: needs images, got a matrix");
  CHECK(why(Attend{5, 1}, {x, x, x}) ==
        "attention: channels that are no whole number for each head");
  CHECK(why(Attend{0, 1}, {x, x, x}) ==
        "attention: channels that are no whole number for each head");
  CHECK(why(Attend{2, 1}, {x, x, {2, 3, {4, 6}}}) ==
        "attention: channels that are no whole number for each head");
  CHECK(why(Attend{3, 1}, {x, {2, 6, {4, 6}}, x}) ==
        "attention: queries and keys differ in channels");
  CHECK(why(Attend{3, 1}, {x, {1, 12, {4, 6}}, x}) ==
        "attention: operands differ in number of images");
  CHECK(why(Attend{3, 1}, {x, x, row}) == "attention: keys and values differ in size");
  CHECK(why(Attend{3, 1, {2, 0}}, {x, row, row}) ==
        "attention: windows of queries and keys that differ in size");
  for (const Pair window : {Pair{3, 2}, Pair{2, 4}, Pair{-2, 2}}) {
    CHECK(why(Attend{3, 1, window}, {x, x, x}) ==
          "attention: windows that do not divide the image");
  }
  const auto biased = [&](int64_t windows, int64_t heads, std::size_t count) {
    const ScoreBias bias{windows, heads, std::vector<float>(count)};
    const Attend layer{3, 1, {2, 3}, false, std::make_shared<const ScoreBias>(bias)};
    return why(layer, {x, x, x});
  };
  CHECK(biased(4, 3, 4 * 3 * 36) == "");
  CHECK(biased(1, 1, 36) == "");
  for (const auto& [windows, heads, count] : {std::tuple{2, 3, 2 * 3 * 36},
                                              {4, 2, 4 * 2 * 36},
                                              {4, 3, 4 * 3 * 36 + 1},
                                              {0, 1, 0},
                                              {1, 1, 72}}) {
    CHECK(biased(windows, heads, static_cast<std::size_t>(count)) ==
          "attention: a bias of another size");
  }
  const auto values = std::make_shared<const std::vector<float>>(24);
  CHECK(why(AddPixels{values, 2}, {row}) == "");
  CHECK(why(AddPixels{values, 1}, {row}) == "add pixels: wrong channels");
  CHECK(why(AddPixels{values, 2}, {x}) == "add pixels: needs images of one row");
  CHECK(why(AddPixels{values, 2}, {matrix}) == "add pixels: needs images, got a matrix");
  const auto image = std::make_shared<const std::vector<float>>(12 * 24);
  CHECK(why(CombineImage{How::add, image, {4, 6}}, {x}) == "");
  CHECK(why(CombineImage{How::add, image, {6, 4}}, {x}) ==
        "combine with an image: operands differ in size");
  CHECK(why(CombineImage{How::add, values, {4, 6}}, {x}) ==
        "combine with an image: operands differ in size");
  CHECK(why(CombineImage{How::add, std::make_shared<const std::vector<float>>(12), {1, 1}},
            {matrix}) == "combine with an image: needs images, got a matrix");
  CHECK(why(ReshapePixels{{3}, {8}}, {x}) == "");
  CHECK(why(ReshapePixels{{3}, {7}}, {x}) == "reshape pixels: not as many pixels as before");
  CHECK(why(ReshapePixels{{1}, {1}}, {matrix}) == "reshape pixels: needs images, got a matrix");
}
