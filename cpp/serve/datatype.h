// The datatypes of the Open Inference Protocol, and tensors as JSON numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convship/model.h"

namespace convship::serve {

const char* datatype_of(DType dtype);  // "FP32", "INT64", "BOOL", ...
std::optional<DType> dtype_of(std::string_view datatype);

// The numbers of a JSON array of any nesting, in order. Integers stay exact;
// the first number that is none turns all into doubles.
class Numbers {
 public:
  void add(std::int64_t value);
  void add(double value);
  void add(bool value);
  std::size_t size() const { return is_real_ ? reals_.size() : integers_.size(); }
  // As memory of that type. Throws Failure(400) where a number does not fit;
  // `subject` begins the message.
  std::vector<std::byte> as(DType dtype, const std::string& subject) const;

 private:
  bool is_real_ = false;
  bool has_booleans_ = false;
  bool has_numbers_ = false;
  std::vector<std::int64_t> integers_;
  std::vector<double> reals_;
};

// The elements as a flat JSON array, each with as many digits as bring back
// the same bits. Throws Failure(422) for what JSON cannot say: NaN, infinity,
// half precision.
void write_json(std::string& out, const Tensor& tensor, const std::string& subject);

}  // namespace convship::serve
