// How a kernel asks its caller for threads. Kernels never make any: the layer
// above decides how many there are and where they come from.
#pragma once

#include <cstdint>

namespace convship::kernels {

// A loop body `void(int64_t begin, int64_t end)`, referred to and not owned.
// std::function would put its template code into every file that is compiled
// for an instruction set of its own.
class RangeBody {
 public:
  template <typename Body>
  RangeBody(const Body& body)  // NOLINT(google-explicit-constructor)
      : body_(&body), call_([](const void* object, int64_t begin, int64_t end) {
          (*static_cast<const Body*>(object))(begin, end);
        }) {}

  void operator()(int64_t begin, int64_t end) const { call_(body_, begin, end); }

 private:
  const void* body_;
  void (*call_)(const void*, int64_t, int64_t);
};

class Parallel {
 public:
  virtual ~Parallel() = default;

  // Threads that run() may use at once.
  virtual int width() const = 0;

  // Calls the body on ranges that cover [0, count) exactly once, at least
  // `grain` numbers each except the last; returns when all are done. The first
  // exception of a body is thrown again here.
  virtual void run(int64_t count, int64_t grain, RangeBody body) const = 0;
};

class Serial final : public Parallel {
 public:
  int width() const override { return 1; }

  void run(int64_t count, int64_t /*grain*/, RangeBody body) const override {
    if (count > 0) body(0, count);
  }
};

}  // namespace convship::kernels
