// The body of an infer request of the Open Inference Protocol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convship/model.h"
#include "serve/datatype.h"

namespace convship::serve {

struct InferInput {
  std::string name;
  std::string datatype;
  std::vector<std::int64_t> shape;
  Numbers numbers;                          // where the data is JSON
  bool has_data = false;                    // "data" was there, though perhaps empty
  std::optional<std::int64_t> binary_size;  // where it follows the JSON
};

struct InferOutput {
  std::string name;
  std::optional<bool> binary;
  bool classification = false;
};

struct InferRequest {
  std::optional<std::string> id;
  std::vector<InferInput> inputs;
  std::vector<InferOutput> outputs;  // none: all
  bool binary_outputs = false;       // where an output does not say
};

// Reads the JSON part. Throws Failure(400).
InferRequest parse_infer_request(std::string_view json);

// A tensor that views JSON numbers converted here, or the request's body.
struct InferTensor {
  std::string name;
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> memory;  // of numbers; empty where `data` views the body
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};

// "a, b"
std::string names_of(const std::vector<TensorInfo>& infos);

// The inputs in the order of `expected`, their names, datatypes, shapes and
// amounts of data checked. `binary` follows the JSON in the body, and must
// outlive the result. Throws Failure(400).
std::vector<InferTensor> read_inputs(InferRequest& request,
                                     std::string_view binary,
                                     const std::vector<TensorInfo>& expected);

}  // namespace convship::serve
