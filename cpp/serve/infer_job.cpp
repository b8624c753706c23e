// POST /v2/models/NAME/infer: tensors in, tensors out.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "serve/infer_request.h"
#include "serve/job.h"

namespace convship::serve {
namespace {

using nlohmann::json;

// How many bytes of the body are JSON; binary data follows.
std::size_t json_size(const Request& request) {
  if (!request.inference_header_length) return request.body.size();
  const std::string& text = *request.inference_header_length;
  std::size_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size() || size > request.body.size()) {
    throw Failure(400, "Inference-Header-Content-Length must be the length of the JSON, at most " +
                           std::to_string(request.body.size()) + " here, got '" + text + "'");
  }
  return size;
}

// A contiguous part of a tensor: rows of a batch.
struct Rows {
  Tensor all;
  std::int64_t begin = 0;
  std::int64_t count = 0;  // negative: the tensor as it is

  Tensor tensor() const {
    if (count < 0) return all;
    auto shape = all.shape();
    const std::int64_t total = shape.at(0);
    shape[0] = count;
    const std::size_t row =
        static_cast<std::size_t>(all.numel() / std::max<std::int64_t>(total, 1)) *
        size_of(all.dtype());
    const auto* data = static_cast<const std::byte*>(all.data());
    return {
        all.dtype(), std::move(shape),
        std::shared_ptr<const void>(all.storage(), data + static_cast<std::size_t>(begin) * row)};
  }
};

class InferJob final : public ModelJob {
 public:
  using ModelJob::ModelJob;

  // Throws Failure.
  void read();

 private:
  std::vector<Reply> answer(const Jobs& jobs) override;
  void check_outputs() const;
  std::string sharing_key() const;
  Reply reply(const std::vector<NamedTensor>& outputs) const;

  InferRequest wanted_;
  std::vector<InferTensor> inputs_;
};

void InferJob::read() {
  if (!request_.content_encoding.empty() && request_.content_encoding != "identity") {
    throw Failure(
        415, "the body must not be compressed, got Content-Encoding " + request_.content_encoding);
  }
  const std::string_view body = request_.body;
  const std::size_t size = json_size(request_);
  wanted_ = parse_infer_request(body.substr(0, size));
  inputs_ = read_inputs(wanted_, body.substr(size), serving_.model.model().inputs());
  check_outputs();
  if (!serving_.model.has_rows()) return;
  rows = inputs_.front().shape.front();
  for (const InferTensor& each : inputs_) rows = std::max(rows, each.shape.front());
  if (rows > serving_.max_batch) {
    throw Failure(400, "a request must have at most " + std::to_string(serving_.max_batch) +
                           " rows (--max-batch), got " + std::to_string(rows) +
                           "; send several requests");
  }
  key = sharing_key();
}

// Same model, same sizes but for the rows, which all inputs have alike.
std::string InferJob::sharing_key() const {
  if (!serving_.model.batches() || rows == 0) return "";
  std::string text = "infer " + serving_.model.name() + ";";
  for (const InferTensor& each : inputs_) {
    if (each.shape.front() != rows) return "";
    for (std::size_t i = 1; i < each.shape.size(); ++i) {
      text += std::to_string(each.shape[i]) += ' ';
    }
    text += ";";
  }
  return text;
}

void InferJob::check_outputs() const {
  for (const InferOutput& each : wanted_.outputs) {
    const auto& known = serving_.model.model().outputs();
    if (std::none_of(known.begin(), known.end(), [&](auto& k) { return k.name == each.name; })) {
      throw Failure(400, "the outputs are " + names_of(known) + "; got '" + each.name + "'");
    }
    if (each.classification) {
      throw Failure(400, "output '" + each.name +
                             "': the classification extension is not served; POST images to "
                             "predict for labels");
    }
  }
}

std::vector<Reply> InferJob::answer(const Jobs& jobs) {
  const std::int64_t total = rows_of(jobs);
  std::vector<NamedView> views;
  std::vector<std::vector<std::byte>> joined(inputs_.size());
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const InferTensor& first = inputs_[i];
    auto shape = first.shape;
    const std::byte* data = first.data;
    // Joined, or at an address that its type may not have.
    if (jobs.size() > 1 || reinterpret_cast<std::uintptr_t>(data) % size_of(first.dtype) != 0) {
      for (const auto& each : jobs) {
        const InferTensor& part = static_cast<const InferJob&>(*each).inputs_[i];
        joined[i].insert(joined[i].end(), part.data, part.data + part.bytes);
      }
      data = joined[i].data();
      if (jobs.size() > 1) shape[0] = total;
    }
    views.push_back({first.name, {data, first.dtype, std::move(shape), {}}});
  }
  const std::vector<NamedTensor> outputs = serving_.model.model().run(views);
  std::vector<Reply> replies;
  std::int64_t begin = 0;
  for (const auto& each : jobs) {
    std::vector<NamedTensor> own;
    for (const NamedTensor& output : outputs) {
      if (jobs.size() > 1 && (output.tensor.shape().empty() || output.tensor.shape()[0] != total)) {
        throw Failure(500, "output '" + output.name + "' has other rows than the inputs");
      }
      const Rows part{output.tensor, begin, jobs.size() > 1 ? each->rows : -1};
      own.push_back({output.name, part.tensor()});
    }
    begin += each->rows;
    const auto& job = static_cast<const InferJob&>(*each);
    replies.push_back(replying(serving_.model, [&] { return job.reply(own); }));
  }
  return replies;
}

Reply InferJob::reply(const std::vector<NamedTensor>& outputs) const {
  std::vector<InferOutput> wanted = wanted_.outputs;
  if (wanted.empty()) {
    for (const NamedTensor& each : outputs) wanted.push_back({each.name, {}, false});
  }
  Reply reply;
  std::string& out = reply.body;
  std::string binary;
  bool any_binary = false;
  out += R"({"model_name":)" + json(serving_.model.name()).dump();
  out.append(R"(,"model_version":")").append(kVersion).append("\"");
  if (wanted_.id) out += R"(,"id":)" + json(*wanted_.id).dump();
  out += R"(,"outputs":[)";
  const char* separator = "";
  for (const InferOutput& each : wanted) {
    const auto found = std::find_if(outputs.begin(), outputs.end(),
                                    [&](const NamedTensor& o) { return o.name == each.name; });
    if (found == outputs.end()) {
      throw Failure(500, "output '" + each.name + "' is missing in the network's answer");
    }
    const Tensor& tensor = found->tensor;
    out += separator;
    separator = ",";
    out += R"({"name":)" + json(each.name).dump();
    out.append(R"(,"datatype":")").append(datatype_of(tensor.dtype()));
    out += R"(","shape":)" + json(tensor.shape()).dump();
    if (each.binary.value_or(wanted_.binary_outputs)) {
      const std::size_t bytes = static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype());
      out += R"(,"parameters":{"binary_data_size":)" + std::to_string(bytes) + "}}";
      binary.append(static_cast<const char*>(tensor.data()), bytes);
      any_binary = true;
    } else {
      out += R"(,"data":)";
      write_json(out, tensor, "output '" + each.name + "'");
      out += '}';
    }
  }
  out += "]}";
  if (any_binary) {
    reply.headers.emplace_back("Inference-Header-Content-Length", std::to_string(out.size()));
    reply.content_type = "application/octet-stream";
    out += binary;
  }
  return reply;
}

}  // namespace

std::unique_ptr<Job> prepare_infer(const Serving& serving, Request request, Done done) {
  return prepared<InferJob>(serving, std::move(request), std::move(done));
}

}  // namespace convship::serve
