// The C++ interface beyond load and run: pixel views, many images, memory of
// the caller, batches, warm-up, log, operator libraries.
#include <doctest/doctest.h>

#include <cstring>
#include <thread>

#include "convship/model.h"
#include "shipped.h"

using namespace convship;
using namespace convship::testing;

namespace {

using Shape = std::vector<std::int64_t>;

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A picture of random colours; `seed` tells pictures apart.
std::vector<std::uint8_t> noise(std::size_t bytes, std::uint32_t seed) {
  std::vector<std::uint8_t> values(bytes);
  for (auto& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<std::uint8_t>(seed >> 24);
  }
  return values;
}

bool same_bits(const std::vector<Prediction>& a, const std::vector<Prediction>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].index != b[i].index ||
        std::memcmp(&a[i].probability, &b[i].probability, sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("dtypes have names, and names dtypes") {
  CHECK(dtype_named("bfloat16") == DType::bfloat16);
  CHECK(dtype_named(name_of(DType::boolean)) == DType::boolean);
  CHECK(!dtype_named("complex64"));
}

TEST_CASE("every pixel format and row stride gives the answer of plain RGB") {
  const Model model = Model::load(shipped(kColours, kColoursManifest));
  constexpr int kHeight = 5, kWidth = 7;
  const auto rgb = noise(kHeight * kWidth * 3, 1);
  const auto expected = model.predict_pixels({rgb.data(), kHeight, kWidth}, 3);
  struct Layout {
    PixelFormat format;
    int red, green, blue;
  };
  for (const Layout& layout :
       {Layout{PixelFormat::rgb, 0, 1, 2}, Layout{PixelFormat::bgr, 2, 1, 0},
        Layout{PixelFormat::rgba, 0, 1, 2}, Layout{PixelFormat::bgra, 2, 1, 0}}) {
    for (const int padding : {0, 1, 13}) {
      for (const bool bottom_up : {false, true}) {
        CAPTURE(static_cast<int>(layout.format));
        CAPTURE(padding);
        const int channels = channels_of(layout.format);
        const int stride = kWidth * channels + padding;
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(stride) * kHeight, 77);
        const auto row_of = [&](int y) {
          return bytes.data() + (bottom_up ? kHeight - 1 - y : y) * stride;
        };
        for (int y = 0; y < kHeight; ++y) {
          for (int x = 0; x < kWidth; ++x) {
            const std::uint8_t* from = rgb.data() + (y * kWidth + x) * 3;
            std::uint8_t* to = row_of(y) + x * channels;
            to[layout.red] = from[0];
            to[layout.green] = from[1];
            to[layout.blue] = from[2];
          }
        }
        const PixelView view{row_of(0), kHeight, kWidth, layout.format,
                             bottom_up ? -stride : stride};
        CHECK(same_bits(model.predict_pixels(view, 3), expected));
      }
    }
  }
}

TEST_CASE("many images of different sizes are answered as each alone") {
  const Model model = Model::load(shipped(kColours, kColoursManifest));
  std::vector<std::vector<std::uint8_t>> pixels;
  std::vector<PixelView> views;
  for (int i = 0; i < 70; ++i) {  // more than two batches of the network
    const int height = 2 + i % 9, width = 2 + i % 7;
    pixels.push_back(noise(static_cast<std::size_t>(height * width * 3), 100u + i));
    views.push_back({pixels.back().data(), height, width});
  }
  const auto answers = model.predict_pixels(std::span<const PixelView>(views), 2);
  REQUIRE(answers.size() == views.size());
  for (std::size_t i = 0; i < views.size(); ++i) {
    CAPTURE(i);
    const auto alone = model.predict_pixels(views[i], 2);
    REQUIRE(answers[i].size() == 2);
    for (std::size_t k = 0; k < 2; ++k) {
      CHECK(answers[i][k].label == alone[k].label);
      CHECK(answers[i][k].probability == doctest::Approx(alone[k].probability).epsilon(1e-6));
    }
  }
  CHECK(model.predict_pixels(std::span<const PixelView>(), 2).empty());
}

TEST_CASE("of many images the one that fails is named") {
  const Model model = Model::load(shipped(kColours, kColoursManifest));
  const std::vector<std::filesystem::path> none = {"/nowhere/a.jpg"};
  CHECK(contains(message_of([&] { model.predict_files(none); }), "/nowhere/a.jpg"));
  const auto text = bytes_of("no image");
  const std::span<const std::byte> images[] = {text, text};
  CHECK(contains(message_of([&] { model.predict_encoded(images); }), "image 1: not a JPEG"));
  CHECK(contains(message_of([&] { model.predict_pixels(PixelView{}); }), "image: height"));
}

TEST_CASE("inputs and outputs are described") {
  const Model model = Model::load(shipped(kTwo, kTwoManifest));
  REQUIRE(model.inputs().size() == 2);
  CHECK(model.inputs()[1].name == "y");
  CHECK(model.inputs()[1].dtype == DType::int64);
  const Shape any_by_3 = {TensorInfo::kAnySize, 3};
  CHECK(model.inputs()[1].shape == any_by_3);
  CHECK(model.outputs().at(1).dtype == DType::boolean);
  Options options;
  options.allow_plain = true;
  const Model plain = Model::load(bytes_of(save(kTwo, "")), options);
  CHECK(plain.inputs().at(0).name == "x");
  CHECK(!plain.inputs().at(0).dtype);
  CHECK(!plain.inputs().at(0).shape);
  CHECK(plain.outputs().empty());
}

TEST_CASE("answers go into the caller's memory, or nothing does") {
  const Model model = Model::load(shipped(kTwo, kTwoManifest));
  const float x[] = {1, 2, 3};
  const std::int64_t y[] = {0, 5, 0};
  const std::vector<NamedView> inputs = {{"x", {x, DType::float32, {1, 3}, {}}},
                                         {"y", {y, DType::int64, {1, 3}, {}}}};
  float sum[3] = {};
  bool more[3] = {};
  model.run_into(inputs, {{"sum", {sum, DType::float32, {1, 3}, {}}},
                          {"more", {more, DType::boolean, {1, 3}, {}}}});
  CHECK(sum[1] == 7);
  CHECK(more[0]);
  CHECK(!more[1]);
  sum[0] = -1;
  const auto wrong = message_of([&] {
    model.run_into(inputs, {{"sum", {sum, DType::float32, {1, 3}, {}}},
                            {"more", {more, DType::uint8, {1, 3}, {}}}});
  });
  CHECK(contains(wrong, "output 'more' is bool [1, 3], got memory for uint8 [1, 3]"));
  CHECK(sum[0] == -1);
  CHECK(contains(message_of([&] { model.run_into(inputs, {{"most", {}}}); }), "sum, more"));
}

TEST_CASE("all dtypes go in and come out") {
  Options options;
  options.allow_plain = true;
  const Model model =
      Model::load(bytes_of(save("def forward(self, x):\n    return x\n", "")), options);
  const std::uint64_t bits[] = {1, 0};
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    const auto dtype = static_cast<DType>(i);
    CAPTURE(name_of(dtype));
    const auto outputs = model.run({{"x", {bits, dtype, {2}, {}}}});
    CHECK(outputs[0].tensor.dtype() == dtype);
    CHECK(outputs[0].tensor.shape() == Shape{2});
    CHECK(std::memcmp(outputs[0].tensor.data(), bits, 2 * size_of(dtype)) == 0);
  }
}

TEST_CASE("a batch of none, one and many runs; what the network refuses is explained") {
  const Model model = Model::load(shipped(kTwo, kTwoManifest));
  for (const std::int64_t batch : {0, 1, 17}) {
    const std::vector<float> x(static_cast<std::size_t>(batch) * 3);
    const std::vector<std::int64_t> y(x.size());
    const auto outputs = model.run({{"x", {x.data(), DType::float32, {batch, 3}, {}}},
                                    {"y", {y.data(), DType::int64, {batch, 3}, {}}}});
    const Shape expected = {batch, 3};
    CHECK(outputs.at(0).tensor.shape() == expected);
  }
  const float x[6] = {};
  const std::int64_t y[8] = {};
  const std::string message = message_of([&] {
    model.run({{"x", {x, DType::float32, {2, 3}, {}}}, {"y", {y, DType::int64, {2, 4}, {}}}});
  });
  CAPTURE(message);
  CHECK(contains(message, "cannot run on x float32 [2, 3], y int64 [2, 4]"));
  CHECK(contains(message, "exported with x float32 [N, 3], y int64 [N, 3]"));
}

TEST_CASE("views that cannot be are refused before they are read") {
  const Model model = Model::load(shipped(kSum));
  const float x[] = {1, 2};
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  CHECK(contains(message_of([&] { model.run({{"x", {x, DType::float32, {kHuge, kHuge}, {}}}}); }),
                 "input 'x': there is no memory of this size"));
  CHECK(contains(message_of([&] { model.run({{"x", {x, DType::float32, {2}, {-1}}}}); }),
                 "strides must not be negative"));
  CHECK(contains(message_of([&] { model.run({{"x", {x, DType::float32, {2}, {1, 1}}}}); }),
                 "a stride for each of the 1 dimensions, got 2"));
  CHECK(contains(message_of([&] { model.run({{"x", {nullptr, DType::float32, {2}, {}}}}); }),
                 "null pointer"));
}

TEST_CASE("warm-up runs where the manifest tells the sizes") {
  const Model model = Model::load(shipped(kColours, kColoursManifest));
  model.warm_up(4);
  CHECK(contains(message_of([&] { model.warm_up(0); }), "at least 1, got 0"));
  Options options;
  options.allow_plain = true;
  const Model plain = Model::load(bytes_of(save(kSum, "")), options);
  CHECK(contains(message_of([&] { plain.warm_up(); }), "size of input 'x'"));
}

TEST_CASE("load tells its stages, and the log what the model prints") {
  std::vector<std::pair<LogLevel, std::string>> lines;
  Options options;
  options.allow_plain = true;
  options.log = [&](LogLevel level, std::string_view text) { lines.emplace_back(level, text); };
  const Model model =
      Model::load(bytes_of(save("def forward(self, x):\n    print('hi')\n    return x\n", "")),
                  options, "talker");
  std::vector<std::string> names;
  for (const LoadStage& stage : model.load_stages()) names.push_back(stage.name);
  // Such a file does not tell for which sizes to plan.
  const std::vector<std::string> expected = {"check", "parse", "freeze", "first calls"};
  CHECK(names == expected);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].first == LogLevel::debug);
  CHECK(contains(lines[0].second, "talker: loaded"));
  const float x[] = {1};
  model.run({{"x", {x, DType::float32, {1}, {}}}});
  REQUIRE(lines.size() == 2);
  CHECK(lines[1].first == LogLevel::info);
  CHECK(lines[1].second == "hi");
}

TEST_CASE("an operator library that cannot be loaded is named") {
  Options options;
  options.op_libraries = {"/nowhere/libacme.so"};
  const std::string message = message_of([&] { Model::load(shipped(kSum), options, "file"); });
  CHECK(contains(message, "/nowhere/libacme.so: this operator library cannot be loaded"));
}

TEST_CASE("many threads get the bits of a single one") {
  const Model model = Model::load(shipped(kColours, kColoursManifest));
  constexpr int kThreads = 8, kCalls = 200;
  std::vector<std::vector<std::uint8_t>> pixels;
  std::vector<std::vector<Prediction>> expected;
  for (int t = 0; t < kThreads; ++t) {
    pixels.push_back(noise(11 * 13 * 3, 7u + static_cast<unsigned>(t)));
    expected.push_back(model.predict_pixels({pixels.back().data(), 11, 13}, 3));
  }
  std::vector<int> wrong(kThreads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        wrong[t] += !same_bits(model.predict_pixels({pixels[t].data(), 11, 13}, 3), expected[t]);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(kThreads));
}

TEST_CASE("the CPU limits bound the default threads") {
  const CpuLimits limits = cpu_limits();
  CHECK(limits.affinity >= 1);
  CHECK(default_threads() >= 1);
  CHECK(default_threads() <= limits.affinity);
  if (limits.quota) CHECK(*limits.quota > 0);
}
