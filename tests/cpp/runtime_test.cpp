// Loading and running, from files made here.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "convship/model.h"
#include "runtime/archive.h"
#include "runtime/safetensors.h"
#include "runtime/sha256.h"
#include "runtime/torch_version.h"
#include "shipped.h"

using namespace convship;
using namespace convship::runtime;
using namespace convship::testing;

namespace {

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string load_message(const std::string& bytes, const Options& options = {}) {
  return message_of([&] { Model::load(bytes_of(bytes), options, "file"); });
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

float run_sum(const Model& model, float a, float b) {
  const float values[] = {a, b};
  const auto outputs = model.run({{"x", {values, DType::float32, {2}, {}}}});
  return outputs.at(0).tensor.values<float>()[0];
}

}  // namespace

TEST_CASE("sha256 of a known text") {
  CHECK(sha256_hex(bytes_of("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("a file that shrinks while it is read is refused, and says so") {
  namespace fs = std::filesystem;
  constexpr std::uintmax_t kSize = 64 << 20;  // long enough to be caught at
  const fs::path path = fs::temp_directory_path() / ("shrinks-" + std::to_string(getpid()));
  std::ofstream(path) << "x";
  std::atomic<bool> reading = true;
  std::thread other([&] {
    while (reading) {
      fs::resize_file(path, 1000);
      fs::resize_file(path, kSize);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
  });
  int refused = 0;
  // A deadline, no number of reads: a thousand reads of the short file are over before a
  // busy machine lets the other thread lengthen it.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (refused < 3 && std::chrono::steady_clock::now() < deadline) {
    const std::string message = message_of([&] { read_file(path); });
    CHECK((message.empty() || contains(message, "became shorter while it was read")));
    refused += message.empty() ? 0 : 1;
  }
  reading = false;
  other.join();
  fs::remove(path);
  CHECK(refused == 3);
}

TEST_CASE("a LibTorch of another minor version is refused") {
  CHECK(torch_mismatch("2.13.0", "2.13.1").empty());
  CHECK(torch_mismatch(build().torch, loaded_torch_version()).empty());
  CHECK(contains(torch_mismatch("2.13.0", "2.12.0"), "built for LibTorch 2.13, this process"));
  CHECK(!torch_mismatch("2.1.0", "2.13.0").empty());
}

TEST_CASE("a shipped network runs and names its output") {
  const Model model = Model::load(shipped(kSum));
  const float values[] = {1, 2};
  const auto outputs = model.run({{"x", {values, DType::float32, {2}, {}}}});
  CHECK(outputs.at(0).name == "sum");
  CHECK(outputs.at(0).tensor.values<float>()[0] == 3);
}

TEST_CASE("strided views are read as they lie") {
  const Model model = Model::load(shipped(kSum));
  const float values[] = {1, 100, 2, 100};
  const auto outputs = model.run({{"x", {values, DType::float32, {2}, {2}}}});
  CHECK(outputs.at(0).tensor.values<float>()[0] == 3);
}

TEST_CASE("tuples, lists, dicts and named keys come out flattened") {
  const Model model = Model::load(
      shipped("def forward(self, x):\n    return {'a': x, 'b': x + 1}, [x, x * 2], 5\n"));
  const float values[] = {1, 2};
  std::vector<std::string> names;
  for (const auto& [name, tensor] : model.run({{"x", {values, DType::float32, {2}, {}}}}))
    names.push_back(name);
  const std::vector<std::string> expected = {"output_0.a", "output_0.b", "output_1.0", "output_1.1",
                                             "output_2"};
  CHECK(names == expected);
}

TEST_CASE("a flipped bit anywhere is refused before LibTorch reads the file") {
  const auto good = shipped(kSum);
  for (std::size_t i = 0; i < good.size(); i += 7) {
    CAPTURE(i);
    auto bad = good;
    bad[i] ^= std::byte{1} << (i % 8);
    Options options;
    options.allow_plain = true;  // nor does it pass as a plain file
    CHECK_THROWS_AS(open_archive(bad, "file", {options.allow_plain, {}}), Error);
  }
}

TEST_CASE("a file cut anywhere is refused") {
  const auto good = shipped(kSum);
  for (std::size_t size = 0; size < good.size(); size += 13) {
    CAPTURE(size);
    CHECK_THROWS_AS(open_archive({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)},
                                 "file", {true, {}}),
                    Error);
  }
}

TEST_CASE("what is no model is named for what it is") {
  CHECK(contains(load_message(""), "empty"));
  CHECK(contains(load_message("\x08\x07\x12\x07pytorch"), "ONNX"));
  CHECK(contains(load_message(std::string("\x80\x02", 2)), "pickle"));
  CHECK(contains(load_message("hello, world"), "not a convship model"));
}

TEST_CASE("a plain TorchScript file needs allow_plain, and then runs") {
  const std::string plain = save(kSum, "");
  CHECK(contains(load_message(plain), "--plain"));
  Options options;
  options.allow_plain = true;
  const Model model = Model::load(bytes_of(plain), options);
  CHECK(run_sum(model, 2, 3) == 5);
  CHECK(contains(message_of([&] { model.selftest(); }), "no goldens"));
  CHECK(contains(message_of([&] { model.predict_file("cat.jpg"); }), "preprocessing"));
}

TEST_CASE("a file whose digest was stripped does not pass as a plain one") {
  Options options;
  options.allow_plain = true;
  CHECK(contains(load_message(save(kSum, kManifest), options), "lost its digest"));
}

TEST_CASE("a manifest of a newer format is named") {
  std::string newer = kManifest;
  newer.replace(newer.find("\"format\": 1"), 11, "\"format\": 9");
  const auto bytes = shipped(kSum, newer);
  CHECK(contains(message_of([&] { Model::load(bytes); }), "format 9"));
}

TEST_CASE("a missing operator is named before LibTorch parses the code") {
  std::string needy = kManifest;
  needy.replace(needy.find("\"required_ops\": []"), 18, "\"required_ops\": [\"acme::fold\"]");
  const auto bytes = shipped(kSum, needy);
  CHECK(contains(message_of([&] { Model::load(bytes); }), "acme::fold"));
}

TEST_CASE("wrong inputs are named") {
  const Model model = Model::load(shipped("def forward(self, x, y):\n    return x + y\n"));
  const float values[] = {1, 2};
  const TensorView view{values, DType::float32, {2}, {}};
  CHECK(contains(message_of([&] { model.run({{"x", view}}); }), "takes 2 inputs (x, y), got 1"));
  CHECK(contains(message_of([&] { model.run({{"x", view}, {"z", view}}); }), "x, y"));
}

TEST_CASE("one model answers many threads as it answers one") {
  const Model model =
      Model::load(shipped("def forward(self, x):\n    return (x * 3.7).exp().sum()\n"));
  const float expected = run_sum(model, 0.3f, 0.9f);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) wrong += run_sum(model, 0.3f, 0.9f) != expected;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("safetensors whose offsets, shapes or header lie are refused") {
  const auto file = [](const std::string& header) {
    std::string bytes(8, '\0');
    const std::uint64_t length = header.size();
    std::memcpy(bytes.data(), &length, 8);
    return bytes_of(bytes + header + std::string(8, '\1'));
  };
  const auto good = file(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})");
  CHECK(read_safetensors(good, "f").at("a").shape() == std::vector<std::int64_t>{2});
  for (const char* header :
       {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})",
        R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})",
        R"({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}})",
        R"({"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}})",
        R"({"a": {"dtype": "X", "shape": [2], "data_offsets": [0, 8]}})", "{"}) {
    CAPTURE(header);
    CHECK_THROWS_AS(read_safetensors(file(header), "f"), Error);
  }
  CHECK_THROWS_AS(read_safetensors(bytes_of("short"), "f"), Error);
}
