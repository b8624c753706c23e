#include "serve/infer_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "serve/failure.h"

namespace convship::serve {
namespace {

// Reads values as they come: a document of millions of numbers would otherwise
// take many times its size in memory.
class Reader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(InferRequest& request) : request_(request) {}

  bool null() override { return value("null"); }

  bool boolean(bool value) override {
    if (place() == Place::data) {
      input().numbers.add(value);
      return true;
    }
    if (place() == Place::parameters && key_ == "binary_data_output") {
      request_.binary_outputs = value;
      return true;
    }
    if (place() == Place::output_parameters && key_ == "binary_data") {
      request_.outputs.back().binary = value;
      return true;
    }
    return this->value(value ? "true" : "false");
  }

  bool number_integer(std::int64_t number) override {
    switch (place()) {
      case Place::data:
        input().numbers.add(number);
        return true;
      case Place::shape:
        input().shape.push_back(number);
        return true;
      case Place::input_parameters:
        if (key_ == "binary_data_size") input().binary_size = number;
        return true;
      case Place::output_parameters:
        if (key_ == "classification") request_.outputs.back().classification = number != 0;
        return true;
      default:
        return value(std::to_string(number));
    }
  }

  bool number_unsigned(std::uint64_t number) override {
    constexpr std::uint64_t kMost = INT64_MAX;
    if (number <= kMost) return number_integer(static_cast<std::int64_t>(number));
    return number_float(static_cast<double>(number), std::to_string(number));
  }

  bool number_float(double number, const std::string& text) override {
    if (place() == Place::data) {
      input().numbers.add(number);
      return true;
    }
    return value(text);
  }

  bool string(std::string& text) override {
    if (place() == Place::root && key_ == "id") {
      request_.id = text;
      return true;
    }
    if (place() == Place::input && key_ == "name") {
      input().name = text;
      return true;
    }
    if (place() == Place::input && key_ == "datatype") {
      input().datatype = text;
      return true;
    }
    if (place() == Place::output && key_ == "name") {
      request_.outputs.back().name = text;
      return true;
    }
    return value("a string");
  }

  bool binary(nlohmann::json::binary_t& /*bytes*/) override { return value("binary"); }

  bool start_object(std::size_t /*count*/) override {
    switch (place()) {
      case Place::outside:
        return enter(Place::root);
      case Place::inputs:
        request_.inputs.emplace_back();
        return enter(Place::input);
      case Place::outputs:
        request_.outputs.emplace_back();
        return enter(Place::output);
      case Place::root:
        if (key_ == "parameters") return enter(Place::parameters);
        break;
      case Place::input:
        if (key_ == "parameters") return enter(Place::input_parameters);
        break;
      case Place::output:
        if (key_ == "parameters") return enter(Place::output_parameters);
        break;
      default:
        break;
    }
    value("an object");
    return enter(Place::ignored);
  }

  bool key(std::string& name) override {
    key_ = name;
    return true;
  }

  bool end_object() override { return leave(); }

  bool start_array(std::size_t /*count*/) override {
    if (place() == Place::root && key_ == "inputs") return enter(Place::inputs);
    if (place() == Place::root && key_ == "outputs") return enter(Place::outputs);
    if (place() == Place::input && key_ == "shape") return enter(Place::shape);
    if (place() == Place::input && key_ == "data") {
      input().has_data = true;
      return enter(Place::data);
    }
    if (place() == Place::data) return enter(Place::data);  // nested data is flattened
    value("an array");
    return enter(Place::ignored);
  }

  bool end_array() override { return leave(); }

  bool parse_error(std::size_t position,
                   const std::string& /*token*/,
                   const nlohmann::json::exception& error) override {
    throw Failure(
        400, "the request must be JSON; at byte " + std::to_string(position) + ": " + error.what());
  }

 private:
  enum class Place {
    outside,
    root,
    parameters,
    inputs,
    input,
    shape,
    data,
    input_parameters,
    outputs,
    output,
    output_parameters,
    ignored,
  };
  static constexpr std::size_t kMostNesting = 64;

  Place place() const { return places_.empty() ? Place::outside : places_.back(); }
  InferInput& input() { return request_.inputs.back(); }

  bool enter(Place place) {
    if (places_.size() == kMostNesting) {
      throw Failure(400, "the request's JSON must not nest deeper than " +
                             std::to_string(kMostNesting) + " levels");
    }
    places_.push_back(place);
    return true;
  }

  bool leave() {
    places_.pop_back();
    return true;
  }

  // What nobody asked for is ignored; in the place of something else it is an error.
  bool value(const std::string& got) {
    const auto fail = [&](const std::string& subject, const std::string& rule) {
      throw Failure(400, subject + " must be " + rule + ", got " + got);
    };
    switch (place()) {
      case Place::outside:
        fail("the request", "a JSON object");
        break;
      case Place::root:
        if (key_ == "id") fail("id", "a string");
        if (key_ == "inputs" || key_ == "outputs") fail(key_, "an array");
        break;
      case Place::inputs:
      case Place::outputs:
        fail("each of the inputs and outputs", "an object");
        break;
      case Place::input:
        if (key_ == "name" || key_ == "datatype") fail("an input's " + key_, "a string");
        if (key_ == "shape" || key_ == "data") fail("an input's " + key_, "an array");
        break;
      case Place::output:
        if (key_ == "name") fail("an output's name", "a string");
        break;
      case Place::shape:
        fail("the sizes in an input's shape", "integers");
        break;
      case Place::data:
        fail("input '" + input().name + "': the data", "numbers or booleans");
        break;
      case Place::input_parameters:
        if (key_ == "binary_data_size") fail("binary_data_size", "an integer");
        break;
      case Place::output_parameters:
        if (key_ == "binary_data") fail("binary_data", "true or false");
        break;
      case Place::parameters:
        if (key_ == "binary_data_output") fail(key_, "true or false");
        break;
      case Place::ignored:
        break;
    }
    return true;
  }

  InferRequest& request_;
  std::vector<Place> places_;
  std::string key_;
};

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") +
            (shape[i] == TensorInfo::kAnySize ? std::string("-1") : std::to_string(shape[i]));
  }
  return text + "]";
}

// How many bytes the shape wants; throws where it is not that of `expected`.
std::int64_t checked_bytes(const InferInput& input,
                           const TensorInfo& expected,
                           const std::string& subject) {
  bool fits = input.shape.size() == expected.shape->size();
  auto bytes = static_cast<std::int64_t>(size_of(*expected.dtype));
  for (std::size_t i = 0; fits && i < input.shape.size(); ++i) {
    const std::int64_t wanted = (*expected.shape)[i];
    fits = input.shape[i] >= 0 && (wanted == TensorInfo::kAnySize || wanted == input.shape[i]) &&
           !__builtin_mul_overflow(bytes, input.shape[i], &bytes);
  }
  if (!fits) {
    throw Failure(400, subject + ": the shape must be " + text_of(*expected.shape) +
                           " (-1: any size), got " + text_of(input.shape));
  }
  return bytes;
}

InferTensor read_input(InferInput& input,
                       const TensorInfo& expected,
                       std::string_view binary,
                       std::size_t& used) {
  const std::string subject = "input '" + input.name + "'";
  if (dtype_of(input.datatype) != expected.dtype) {
    throw Failure(400, subject + ": the datatype must be " + datatype_of(*expected.dtype) +
                           ", got " + (input.datatype.empty() ? "none" : input.datatype));
  }
  const auto bytes = static_cast<std::size_t>(checked_bytes(input, expected, subject));
  if (input.has_data == input.binary_size.has_value()) {
    throw Failure(400, subject +
                           ": there must be either data or parameters.binary_data_size, got " +
                           (input.has_data ? "both" : "neither"));
  }
  InferTensor tensor{expected.name, *expected.dtype, input.shape, {}, nullptr, bytes};
  if (input.has_data) {
    if (input.numbers.size() != bytes / size_of(tensor.dtype)) {
      throw Failure(400, subject + ": the data must hold " +
                             std::to_string(bytes / size_of(tensor.dtype)) +
                             " elements for the shape " + text_of(input.shape) + ", got " +
                             std::to_string(input.numbers.size()));
    }
    tensor.memory = input.numbers.as(tensor.dtype, subject);
    input.numbers = {};
    tensor.data = tensor.memory.data();
    return tensor;
  }
  if (*input.binary_size != static_cast<std::int64_t>(bytes)) {
    throw Failure(400, subject + ": binary_data_size must be " + std::to_string(bytes) +
                           " for the shape " + text_of(input.shape) + ", got " +
                           std::to_string(*input.binary_size));
  }
  if (binary.size() - used < bytes) {
    throw Failure(400, subject + ": the body must hold " + std::to_string(bytes) +
                           " more bytes of binary data, got " +
                           std::to_string(binary.size() - used));
  }
  tensor.data = reinterpret_cast<const std::byte*>(binary.data()) + used;
  used += bytes;
  if (tensor.dtype == DType::boolean &&
      std::any_of(tensor.data, tensor.data + bytes, [](std::byte b) { return b > std::byte{1}; })) {
    throw Failure(400, subject + ": binary data of BOOL must be bytes 0 and 1, got others");
  }
  return tensor;
}

}  // namespace

std::string names_of(const std::vector<TensorInfo>& infos) {
  std::string text;
  for (const TensorInfo& each : infos) text += (text.empty() ? "" : ", ") + each.name;
  return text;
}

InferRequest parse_infer_request(std::string_view json) {
  InferRequest request;
  Reader reader(request);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  return request;
}

std::vector<InferTensor> read_inputs(InferRequest& request,
                                     std::string_view binary,
                                     const std::vector<TensorInfo>& expected) {
  std::vector<InferTensor> tensors(expected.size());
  std::vector<bool> given(expected.size());
  std::size_t used = 0;
  // Binary data lies in the order of the request's inputs.
  for (InferInput& input : request.inputs) {
    const auto found = std::find_if(expected.begin(), expected.end(), [&](const TensorInfo& each) {
      return each.name == input.name;
    });
    const auto index = static_cast<std::size_t>(found - expected.begin());
    if (found == expected.end() || given[index]) {
      throw Failure(400, "the inputs must be " + names_of(expected) + ", each once; got '" +
                             input.name + "'");
    }
    given[index] = true;
    tensors[index] = read_input(input, *found, binary, used);
  }
  if (request.inputs.size() != expected.size()) {
    throw Failure(400, "the inputs must be " + names_of(expected) + ", each once; got " +
                           std::to_string(request.inputs.size()));
  }
  if (used != binary.size()) {
    throw Failure(400, "the body must end with the inputs' binary data, got " +
                           std::to_string(binary.size() - used) + " bytes more");
  }
  return tensors;
}

}  // namespace convship::serve
