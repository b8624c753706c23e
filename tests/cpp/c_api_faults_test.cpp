// The C interface when its caller is wrong (every pointer null, every size, every
// handle of another type) and when everything behind it fails. A stub stands
// where the network would be. What right calls answer: c_api_program.c.
#include <doctest/doctest.h>
#include <pthread.h>

#include <atomic>
#include <climits>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "allocations.h"
#include "convship/convship.h"
#include "shipped.h"
#include "stub_backend.h"

using namespace convship::testing;

namespace {

constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();

// A handle that a failing call must leave alone or set to null.
template <typename Handle>
Handle* untouched() {
  static char memory[64] = {};
  return reinterpret_cast<Handle*>(memory);
}

template <typename Handle>
bool is_untouched(const Handle* handle) {
  return handle == nullptr || handle == untouched<Handle>();
}

// All that right calls need; tests take one thing away.
class World {
 public:
  World() : general_file_(shipped(kSum)), colours_file_(shipped(kColours, kColoursManifest)) {
    fail_at(Step::none);
    REQUIRE(load(general_file_, &general) == CONVSHIP_OK);
    REQUIRE(load(colours_file_, &colours) == CONVSHIP_OK);
    REQUIRE(convship_run(general, &input, 1, &outputs) == CONVSHIP_OK);
    REQUIRE(convship_predict_pixels(colours, &pixels, 1, 1, &predictions) == CONVSHIP_OK);
  }
  ~World() {
    fail_at(Step::none);
    convship_outputs_free(outputs);
    convship_predictions_free(predictions);
    convship_model_free(general);
    convship_model_free(colours);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  convship_status load(const std::vector<std::byte>& file, convship_model** model) const {
    return convship_model_load_memory(file.data(), file.size(), nullptr, nullptr, model);
  }
  const std::vector<std::byte>& general_file() const { return general_file_; }
  const std::vector<std::byte>& colours_file() const { return colours_file_; }

  convship_model* general = nullptr;
  convship_model* colours = nullptr;
  convship_outputs* outputs = nullptr;
  convship_predictions* predictions = nullptr;

  float values[2] = {3, 4};
  std::int64_t shape[1] = {2};
  convship_tensor input = {sizeof input, "x", values, CONVSHIP_FLOAT32, 1, shape, nullptr};
  float memory[2] = {-1, -1};
  convship_buffer buffer = {sizeof buffer, "sum", memory, CONVSHIP_FLOAT32, 1, shape, nullptr};
  unsigned char rgb[3] = {9, 0, 0};
  convship_pixels pixels = {sizeof pixels, rgb, 1, 1, CONVSHIP_RGB, 0, 0};
  convship_bytes bytes = {sizeof bytes, rgb, sizeof rgb};
  const char* path = "/nowhere.png";

 private:
  std::vector<std::byte> general_file_, colours_file_;
};

// One wrong call: refused, with a reason of one line, and nothing handed out.
void check_refused(convship_status status, convship_status expected = CONVSHIP_USAGE) {
  CHECK(status == expected);
  const std::string reason = convship_last_error();
  CAPTURE(reason);
  CHECK(!reason.empty());
  CHECK(reason.find('\n') == std::string::npos);
}

}  // namespace

TEST_CASE("every pointer of every function may be null, and is named") {
  World world;
  convship_model* model = untouched<convship_model>();
  convship_outputs* outputs = untouched<convship_outputs>();
  convship_predictions* predictions = untouched<convship_predictions>();
  std::size_t count = 7;
  const char* text = "text";
  convship_tensor_info info = CONVSHIP_TENSOR_INFO_INIT;
  convship_tensor tensor = CONVSHIP_TENSOR_INIT;
  convship_prediction prediction = CONVSHIP_PREDICTION_INIT;
  const char* no_path = nullptr;
  const auto& file = world.general_file();
  const convship_model* m = world.general;
  const convship_model* c = world.colours;
  const std::pair<const char*, std::function<convship_status()>> calls[] = {
      {"build", [&] { return convship_get_build(nullptr); }},
      {"path", [&] { return convship_model_load(nullptr, nullptr, &model); }},
      {"model", [&] { return convship_model_load("x", nullptr, nullptr); }},
      {"bytes", [&] { return convship_model_load_memory(nullptr, 9, nullptr, nullptr, &model); }},
      {"model",
       [&] {
         return convship_model_load_memory(file.data(), file.size(), nullptr, nullptr, nullptr);
       }},
      {"model", [&] { return convship_model_manifest(nullptr, &text); }},
      {"json", [&] { return convship_model_manifest(m, nullptr); }},
      {"model", [&] { return convship_model_label_count(nullptr, &count); }},
      {"count", [&] { return convship_model_label_count(c, nullptr); }},
      {"model", [&] { return convship_model_label(nullptr, 0, &text); }},
      {"label", [&] { return convship_model_label(c, 0, nullptr); }},
      {"model", [&] { return convship_model_input_count(nullptr, &count); }},
      {"count", [&] { return convship_model_input_count(m, nullptr); }},
      {"model", [&] { return convship_model_input(nullptr, 0, &info); }},
      {"info", [&] { return convship_model_input(m, 0, nullptr); }},
      {"model", [&] { return convship_model_output_count(nullptr, &count); }},
      {"count", [&] { return convship_model_output_count(m, nullptr); }},
      {"model", [&] { return convship_model_output(nullptr, 0, &info); }},
      {"info", [&] { return convship_model_output(m, 0, nullptr); }},
      {"model", [&] { return convship_run(nullptr, &world.input, 1, &outputs); }},
      {"convship_tensor", [&] { return convship_run(m, nullptr, 1, &outputs); }},
      {"outputs", [&] { return convship_run(m, &world.input, 1, nullptr); }},
      {"outputs", [&] { return convship_outputs_get(nullptr, 0, &tensor); }},
      {"tensor", [&] { return convship_outputs_get(world.outputs, 0, nullptr); }},
      {"outputs", [&] { return convship_outputs_find(nullptr, "sum", &tensor); }},
      {"name", [&] { return convship_outputs_find(world.outputs, nullptr, &tensor); }},
      {"tensor", [&] { return convship_outputs_find(world.outputs, "sum", nullptr); }},
      {"model", [&] { return convship_run_into(nullptr, &world.input, 1, &world.buffer, 1); }},
      {"convship_tensor", [&] { return convship_run_into(m, nullptr, 1, &world.buffer, 1); }},
      {"convship_buffer", [&] { return convship_run_into(m, &world.input, 1, nullptr, 1); }},
      {"model", [&] { return convship_model_warm_up(nullptr, 1); }},
      {"model", [&] { return convship_predict_files(nullptr, &world.path, 1, 1, &predictions); }},
      {"paths", [&] { return convship_predict_files(c, nullptr, 1, 1, &predictions); }},
      {"paths", [&] { return convship_predict_files(c, &no_path, 1, 1, &predictions); }},
      {"predictions", [&] { return convship_predict_files(c, &world.path, 1, 1, nullptr); }},
      {"model",
       [&] { return convship_predict_encoded(nullptr, &world.bytes, 1, 1, &predictions); }},
      {"convship_bytes", [&] { return convship_predict_encoded(c, nullptr, 1, 1, &predictions); }},
      {"predictions", [&] { return convship_predict_encoded(c, &world.bytes, 1, 1, nullptr); }},
      {"model",
       [&] { return convship_predict_pixels(nullptr, &world.pixels, 1, 1, &predictions); }},
      {"convship_pixels", [&] { return convship_predict_pixels(c, nullptr, 1, 1, &predictions); }},
      {"predictions", [&] { return convship_predict_pixels(c, &world.pixels, 1, 1, nullptr); }},
      {"predictions", [&] { return convship_predictions_get(nullptr, 0, 0, &prediction); }},
      {"prediction", [&] { return convship_predictions_get(world.predictions, 0, 0, nullptr); }},
      {"model", [&] { return convship_model_selftest(nullptr, &count); }},
  };
  for (const auto& [name, call] : calls) {
    CAPTURE(&call - &calls[0].second);
    check_refused(call());
    const std::string reason = convship_last_error();
    CAPTURE(reason);
    CHECK(reason.find(name) != std::string::npos);
  }
  CHECK(is_untouched(model));
  CHECK(is_untouched(outputs));
  CHECK(is_untouched(predictions));
  CHECK(count == 7);
  CHECK(std::strcmp(text, "text") == 0);
  CHECK(convship_outputs_count(nullptr) == 0);
  CHECK(convship_predictions_image_count(nullptr) == 0);
  CHECK(convship_predictions_count(nullptr, 0) == 0);
}

TEST_CASE("null inside of structs is refused") {
  World world;
  convship_outputs* outputs = nullptr;
  convship_predictions* predictions = nullptr;
  const auto with = [](auto given, const auto& change) {
    change(given);
    return given;
  };
  const convship_tensor tensors[] = {
      with(world.input, [](auto& t) { t.data = nullptr; }),
      with(world.input, [](auto& t) { t.shape = nullptr; }),
  };
  for (const auto& each : tensors) {
    check_refused(convship_run(world.general, &each, 1, &outputs));
    check_refused(convship_run_into(world.general, &each, 1, &world.buffer, 1));
  }
  const convship_buffer buffers[] = {
      with(world.buffer, [](auto& b) { b.data = nullptr; }),
      with(world.buffer, [](auto& b) { b.shape = nullptr; }),
      with(world.buffer, [](auto& b) { b.name = nullptr; }),
  };
  for (const auto& each : buffers) {
    check_refused(convship_run_into(world.general, &world.input, 1, &each, 1));
  }
  const convship_pixels pixels = with(world.pixels, [](auto& p) { p.data = nullptr; });
  check_refused(convship_predict_pixels(world.colours, &pixels, 1, 1, &predictions));
  const convship_bytes bytes = with(world.bytes, [](auto& b) { b.data = nullptr; });
  check_refused(convship_predict_encoded(world.colours, &bytes, 1, 1, &predictions));
  convship_options options = CONVSHIP_OPTIONS_INIT;
  options.op_library_count = 1;
  convship_model* model = nullptr;
  check_refused(convship_model_load("x", &options, &model));
  const char* none[] = {nullptr};
  options.op_libraries = none;
  check_refused(convship_model_load("x", &options, &model));
  CHECK(outputs == nullptr);
  CHECK(predictions == nullptr);
  CHECK(model == nullptr);
}

namespace {

// Calls `call` with every struct_size that cannot be, and with all that an older
// header may have had.
template <typename Struct>
void check_sizes(const Struct& right,
                 const std::function<convship_status(Struct*)>& call,
                 const std::function<bool(convship_status, std::size_t)>& allowed) {
  struct Newer {
    Struct known;
    unsigned char more[4096];
  };
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{4097},
                                 std::size_t{1} << 40, kMost / 2, kMost - 7, kMost}) {
    CAPTURE(size);
    Struct given = right;
    given.struct_size = size;
    check_refused(call(&given));
  }
  for (std::size_t size = sizeof(std::size_t); size <= 4096; size += 4) {
    CAPTURE(size);
    Newer given{right, {}};
    given.known.struct_size = size;
    const convship_status status = call(&given.known);
    CHECK((size % alignof(void*) == 0 ? allowed(status, size) : status == CONVSHIP_USAGE));
    CHECK(std::count(std::begin(given.more), std::end(given.more), 0) == 4096);
  }
}

}  // namespace

TEST_CASE("every struct_size is refused, or read and written as far as it says") {
  World world;
  const auto is_ok = [](convship_status status, std::size_t) { return status == CONVSHIP_OK; };
  // What is read lacks fields that it cannot do without.
  const auto needs = [](std::size_t size) {
    return [size](convship_status status, std::size_t given) {
      return status == (given >= size ? CONVSHIP_OK : CONVSHIP_USAGE);
    };
  };
  check_sizes<convship_build>(CONVSHIP_BUILD_INIT, convship_get_build, is_ok);
  check_sizes<convship_tensor_info>(
      CONVSHIP_TENSOR_INFO_INIT, [&](auto* s) { return convship_model_input(world.general, 0, s); },
      is_ok);
  check_sizes<convship_tensor_info>(
      CONVSHIP_TENSOR_INFO_INIT,
      [&](auto* s) { return convship_model_output(world.general, 0, s); }, is_ok);
  check_sizes<convship_tensor>(
      CONVSHIP_TENSOR_INIT, [&](auto* s) { return convship_outputs_get(world.outputs, 0, s); },
      is_ok);
  check_sizes<convship_tensor>(
      CONVSHIP_TENSOR_INIT, [&](auto* s) { return convship_outputs_find(world.outputs, "sum", s); },
      is_ok);
  check_sizes<convship_prediction>(
      CONVSHIP_PREDICTION_INIT,
      [&](auto* s) { return convship_predictions_get(world.predictions, 0, 0, s); }, is_ok);
  check_sizes<convship_tensor>(
      world.input,
      [&](auto* s) {
        convship_outputs* outputs = nullptr;
        const auto status = convship_run(world.general, s, 1, &outputs);
        convship_outputs_free(outputs);
        return status;
      },
      needs(offsetof(convship_tensor, strides)));
  check_sizes<convship_buffer>(
      world.buffer,
      [&](auto* s) { return convship_run_into(world.general, &world.input, 1, s, 1); },
      needs(offsetof(convship_buffer, strides)));
  check_sizes<convship_options>(
      CONVSHIP_OPTIONS_INIT,
      [&](auto* s) {
        convship_model* model = nullptr;
        const auto& file = world.general_file();
        const auto status = convship_model_load_memory(file.data(), file.size(), "m", s, &model);
        convship_model_free(model);
        return status;
      },
      is_ok);
}

TEST_CASE("counts and sizes that no memory has are refused before they are used") {
  World world;
  convship_outputs* outputs = nullptr;
  convship_predictions* predictions = nullptr;
  convship_model* model = nullptr;
  for (const std::size_t count : {kMost, kMost / 2 + 1, kMost / 16, kMost / 512}) {
    CAPTURE(count);
    check_refused(convship_run(world.general, &world.input, count, &outputs));
    check_refused(convship_run_into(world.general, &world.input, 1, &world.buffer, count));
    check_refused(convship_predict_files(world.colours, &world.path, count, 1, &predictions));
    check_refused(convship_predict_encoded(world.colours, &world.bytes, count, 1, &predictions));
    check_refused(convship_predict_pixels(world.colours, &world.pixels, count, 1, &predictions));
  }
  check_refused(convship_model_load_memory("x", kMost, nullptr, nullptr, &model));
  convship_options options = CONVSHIP_OPTIONS_INIT;
  options.op_libraries = &world.path;
  options.op_library_count = kMost;
  check_refused(convship_model_load("x", &options, &model));
  world.bytes.size = kMost;
  check_refused(convship_predict_encoded(world.colours, &world.bytes, 1, 1, &predictions));

  const std::int64_t hostile[] = {INT64_MIN, INT64_MIN + 1, -1, INT64_MAX, INT64_MAX / 4};
  for (const std::int64_t value : hostile) {
    CAPTURE(value);
    convship_pixels pixels = world.pixels;
    pixels.height = value;
    check_refused(convship_predict_pixels(world.colours, &pixels, 1, 1, &predictions));
    pixels = world.pixels;
    pixels.width = value;
    check_refused(convship_predict_pixels(world.colours, &pixels, 1, 1, &predictions));
    pixels = world.pixels;
    pixels.height = 4;
    pixels.row_stride = value;
    check_refused(convship_predict_pixels(world.colours, &pixels, 1, 1, &predictions));
    convship_tensor tensor = world.input;
    tensor.shape = &value;
    check_refused(convship_run(world.general, &tensor, 1, &outputs));
    tensor = world.input;
    tensor.strides = &value;
    check_refused(convship_run(world.general, &tensor, 1, &outputs));
    convship_buffer buffer = world.buffer;
    buffer.strides = &value;
    check_refused(convship_run_into(world.general, &world.input, 1, &buffer, 1));
  }
  for (const std::int32_t value : {INT_MIN, -1, 65, INT_MAX}) {
    CAPTURE(value);
    convship_tensor tensor = world.input;
    tensor.rank = value;
    check_refused(convship_run(world.general, &tensor, 1, &outputs));
    tensor = world.input;
    tensor.dtype = value;
    check_refused(convship_run(world.general, &tensor, 1, &outputs));
    convship_buffer buffer = world.buffer;
    buffer.rank = value;
    check_refused(convship_run_into(world.general, &world.input, 1, &buffer, 1));
  }
  check_refused(convship_predict_pixels(world.colours, &world.pixels, 1, 0, &predictions));
  check_refused(convship_predict_pixels(world.colours, &world.pixels, 1, INT_MIN, &predictions));
  check_refused(convship_model_warm_up(world.general, INT64_MIN));
  check_refused(convship_set_threads(INT_MIN));
  CHECK(convship_model_label(world.colours, kMost, nullptr) == CONVSHIP_USAGE);
  convship_tensor tensor = CONVSHIP_TENSOR_INIT;
  check_refused(convship_outputs_get(world.outputs, kMost, &tensor));
  convship_prediction prediction = CONVSHIP_PREDICTION_INIT;
  check_refused(convship_predictions_get(world.predictions, kMost, kMost, &prediction));
  CHECK(outputs == nullptr);
  CHECK(predictions == nullptr);
  CHECK(model == nullptr);
  CHECK(world.memory[0] == -1);
}

TEST_CASE("memory of any alignment is read and written as if it were aligned") {
  World world;
  alignas(8) unsigned char bytes[64] = {};
  unsigned char* odd = bytes + 1;
  std::memcpy(odd, world.values, sizeof world.values);
  world.input.data = odd;
  world.buffer.data = odd + 17;
  REQUIRE(convship_run_into(world.general, &world.input, 1, &world.buffer, 1) == CONVSHIP_OK);
  CHECK(std::memcmp(odd + 17, world.values, sizeof world.values) == 0);
  CHECK(odd[16] == 0);
  CHECK(odd[17 + sizeof world.values] == 0);
}

TEST_CASE("buffers of another size than the answer are refused and not written") {
  World world;
  for (const std::int64_t size : {0, 1, 3, 1000}) {
    world.buffer.shape = &size;
    check_refused(convship_run_into(world.general, &world.input, 1, &world.buffer, 1));
  }
  world.buffer.rank = 0;
  check_refused(convship_run_into(world.general, &world.input, 1, &world.buffer, 1));
  CHECK(world.memory[0] == -1);
  CHECK(world.memory[1] == -1);
}

TEST_CASE("handles of another type are refused everywhere and never freed") {
  World world;
  void* const handles[] = {world.general, world.outputs, world.predictions};
  std::size_t count = 7;
  const char* text = "text";
  convship_tensor_info info = CONVSHIP_TENSOR_INFO_INIT;
  convship_tensor tensor = CONVSHIP_TENSOR_INIT;
  convship_prediction prediction = CONVSHIP_PREDICTION_INIT;
  convship_outputs* outputs = nullptr;
  convship_predictions* predictions = nullptr;
  for (void* handle : handles) {
    if (handle != world.general) {
      const auto* model = static_cast<const convship_model*>(handle);
      check_refused(convship_model_manifest(model, &text));
      check_refused(convship_model_label_count(model, &count));
      check_refused(convship_model_label(model, 0, &text));
      check_refused(convship_model_input_count(model, &count));
      check_refused(convship_model_input(model, 0, &info));
      check_refused(convship_model_output_count(model, &count));
      check_refused(convship_model_output(model, 0, &info));
      check_refused(convship_run(model, &world.input, 1, &outputs));
      check_refused(convship_run_into(model, &world.input, 1, &world.buffer, 1));
      check_refused(convship_model_warm_up(model, 1));
      check_refused(convship_predict_files(model, &world.path, 1, 1, &predictions));
      check_refused(convship_predict_encoded(model, &world.bytes, 1, 1, &predictions));
      check_refused(convship_predict_pixels(model, &world.pixels, 1, 1, &predictions));
      check_refused(convship_model_selftest(model, &count));
      convship_model_free(static_cast<convship_model*>(handle));
    }
    if (handle != world.outputs) {
      auto* wrong = static_cast<convship_outputs*>(handle);
      check_refused(convship_outputs_get(wrong, 0, &tensor));
      check_refused(convship_outputs_find(wrong, "sum", &tensor));
      CHECK(convship_outputs_count(wrong) == 0);
      convship_outputs_free(wrong);
    }
    if (handle != world.predictions) {
      auto* wrong = static_cast<convship_predictions*>(handle);
      check_refused(convship_predictions_get(wrong, 0, 0, &prediction));
      CHECK(convship_predictions_image_count(wrong) == 0);
      CHECK(convship_predictions_count(wrong, 0) == 0);
      convship_predictions_free(wrong);
    }
  }
  CHECK(count == 7);
  CHECK(outputs == nullptr);
  CHECK(predictions == nullptr);
  CHECK(convship_outputs_count(world.outputs) == 1);
  CHECK(convship_predictions_image_count(world.predictions) == 1);
}

#ifndef CONVSHIP_SANITIZED  // which ends the program: a freed handle is read, to recognise it
TEST_CASE("a handle that was just freed is recognised") {
  World world;
  convship_model* model = nullptr;
  REQUIRE(world.load(world.general_file(), &model) == CONVSHIP_OK);
  convship_model_free(model);
  convship_model_free(model);
  std::size_t count = 7;
  check_refused(convship_model_label_count(model, &count));
  convship_outputs* outputs = nullptr;
  REQUIRE(convship_run(world.general, &world.input, 1, &outputs) == CONVSHIP_OK);
  convship_outputs_free(outputs);
  convship_outputs_free(outputs);
  CHECK(convship_outputs_count(outputs) == 0);
}
#endif

namespace {

// All that runs the network; every one hands out nothing when it fails.
convship_status call_everything(World& world, const std::function<void(convship_status)>& check) {
  convship_status first = CONVSHIP_OK;
  const auto note = [&](convship_status status) {
    check(status);
    if (first == CONVSHIP_OK) first = status;
  };
  convship_model* model = untouched<convship_model>();
  const auto& file = world.colours_file();
  note(convship_model_load_memory(file.data(), file.size(), nullptr, nullptr, &model));
  if (first != CONVSHIP_OK) CHECK(is_untouched(model));
  if (!is_untouched(model)) convship_model_free(model);
  convship_outputs* outputs = untouched<convship_outputs>();
  const auto ran = convship_run(world.general, &world.input, 1, &outputs);
  note(ran);
  if (ran != CONVSHIP_OK) CHECK(is_untouched(outputs));
  if (!is_untouched(outputs)) convship_outputs_free(outputs);
  world.memory[0] = -1;
  const auto wrote = convship_run_into(world.general, &world.input, 1, &world.buffer, 1);
  note(wrote);
  CHECK(world.memory[0] == (wrote == CONVSHIP_OK ? 3 : -1));
  convship_predictions* predictions = untouched<convship_predictions>();
  const auto predicted = convship_predict_pixels(world.colours, &world.pixels, 1, 1, &predictions);
  note(predicted);
  if (predicted != CONVSHIP_OK) CHECK(is_untouched(predictions));
  if (!is_untouched(predictions)) convship_predictions_free(predictions);
  note(convship_model_warm_up(world.colours, 1));
  return first;
}

}  // namespace

TEST_CASE("whatever any step throws becomes a status, and the next call works") {
  World world;
  struct Reached {
    Step step;
    int calls;  // of call_everything
  };
  for (const auto& [step, calls] : {Reached{Step::load, 1}, Reached{Step::input_names, 3},
                                    Reached{Step::forward, 4}, Reached{Step::preprocess, 2}}) {
    for (const Thrown thrown :
         {Thrown::torch_error, Thrown::bad_alloc, Thrown::length_error, Thrown::integer}) {
      CAPTURE(static_cast<int>(step));
      CAPTURE(static_cast<int>(thrown));
      fail_at(step, thrown);
      int failed = 0;
      call_everything(world, [&](convship_status status) {
        if (status == CONVSHIP_OK) return;
        ++failed;
        if (thrown == Thrown::bad_alloc) {
          CHECK(status == CONVSHIP_ENVIRONMENT);
        } else {
          CHECK(status >= CONVSHIP_USAGE);
          CHECK(status <= CONVSHIP_INTERNAL);
        }
        check_refused(status, status);
      });
      CHECK(failed == calls);
      fail_at(Step::none);
      CHECK(call_everything(world, [](convship_status) {}) == CONVSHIP_OK);
    }
  }
}

TEST_CASE("a log that throws does not get through") {
  World world;
  convship_options options = CONVSHIP_OPTIONS_INIT;
  options.log = [](void*, convship_log_level, const char*) { throw 42; };
  convship_model* model = untouched<convship_model>();
  const auto& file = world.general_file();
  check_refused(convship_model_load_memory(file.data(), file.size(), nullptr, &options, &model),
                CONVSHIP_BAD_MODEL);
  CHECK(is_untouched(model));
}

#ifndef CONVSHIP_SANITIZED  // whose allocator is another
TEST_CASE("of all allocations of a call any one may fail") {
  World world;
  int failures = 0, calls = 0;
  // Without a manifest: the JSON library's destructors allocate, and end the
  // process where that fails.
  const std::vector<std::byte> file = bytes_of(save(kSum, ""));
  convship_options plain = CONVSHIP_OPTIONS_INIT;
  plain.allow_plain = 1;
  for (std::int64_t allowed = 0;; ++allowed) {
    CAPTURE(allowed);
    const std::int64_t before = failed_allocations();
    // CHECK allocates too, so the verdict waits.
    convship_status statuses[8];
    int count = 0;
    {
      const FailingAllocations failing(allowed);
      convship_model* model = nullptr;
      statuses[count++] =
          convship_model_load_memory(file.data(), file.size(), nullptr, &plain, &model);
      convship_model_free(model);
      convship_outputs* outputs = nullptr;
      statuses[count++] = convship_run(world.general, &world.input, 1, &outputs);
      convship_outputs_free(outputs);
      statuses[count++] = convship_run_into(world.general, &world.input, 1, &world.buffer, 1);
      convship_predictions* found = nullptr;
      statuses[count++] = convship_predict_pixels(world.colours, &world.pixels, 1, 1, &found);
      convship_predictions_free(found);
      statuses[count++] = convship_run(world.general, &world.input, 2, &outputs);
    }
    const bool any = failed_allocations() != before;
    for (int i = 0; i < count; ++i) {
      const bool wrong_call = i == count - 1;
      if (statuses[i] != CONVSHIP_OK) ++failures;
      CHECK((statuses[i] == CONVSHIP_OK || statuses[i] == CONVSHIP_ENVIRONMENT || wrong_call));
    }
    ++calls;
    CHECK(convship_run_into(world.general, &world.input, 1, &world.buffer, 1) == CONVSHIP_OK);
    if (!any) break;
  }
  MESSAGE("allocations failed: " << calls - 1);
  CHECK(calls > 100);
  CHECK(failures > 100);
}
#endif

TEST_CASE("a thread that is cancelled ends after its call, not in it") {
  World world;
  struct Shared {
    World& world;
    std::atomic<std::int64_t> begun{0}, ended{0};
  } shared{world};
  for (int i = 0; i < 200; ++i) {
    pthread_t thread;
    REQUIRE(pthread_create(
                &thread, nullptr,
                [](void* argument) -> void* {
                  auto& s = *static_cast<Shared*>(argument);
                  for (;;) {
                    ++s.begun;
                    convship_predictions* found = nullptr;
                    const char* path = "/dev/null";  // open and read are cancellation points
                    convship_predict_files(s.world.colours, &path, 1, 1, &found);
                    ++s.ended;
                    pthread_testcancel();
                  }
                },
                &shared) == 0);
    const std::int64_t before = shared.begun;
    while (shared.begun == before) std::this_thread::yield();
    pthread_cancel(thread);
    void* result = nullptr;
    pthread_join(thread, &result);
    CHECK(result == PTHREAD_CANCELED);
    CHECK(shared.begun == shared.ended);
  }
}

TEST_CASE("every thread keeps its own last error") {
  constexpr int kThreads = 64, kCalls = 1000;
  std::vector<int> wrong(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&wrong, t] {
      const std::string expected = "got " + std::to_string(-t);
      for (int i = 0; i < kCalls; ++i) {
        convship_set_threads(-t);
        wrong[static_cast<std::size_t>(t)] +=
            std::string(convship_last_error()).find(expected) == std::string::npos;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(kThreads));
}

TEST_CASE("models come and go in many threads at once") {
  World world;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        convship_model* model = nullptr;
        convship_predictions* found = nullptr;
        convship_prediction best = CONVSHIP_PREDICTION_INIT;
        wrong += world.load(world.colours_file(), &model) != CONVSHIP_OK;
        for (const convship_model* each : {const_cast<const convship_model*>(model),
                                           const_cast<const convship_model*>(world.colours)}) {
          wrong += convship_predict_pixels(each, &world.pixels, 1, 1, &found) != CONVSHIP_OK;
          wrong += convship_predictions_get(found, 0, 0, &best) != CONVSHIP_OK;
          wrong += std::strcmp(best.label, "red") != 0;
          convship_predictions_free(found);
        }
        convship_model_free(model);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}
