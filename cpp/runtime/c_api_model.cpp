// Loading, describing and proving models.
#include "c_api_model.h"

#include <array>
#include <cstdio>
#include <span>

using namespace convship;
using namespace convship::c_api;

namespace convship::c_api {
namespace {

thread_local std::array<char, 4096> last_error{};

Options options_of(const convship_options* given) {
  Options options;
  if (given == nullptr) return options;
  const convship_options known = read_struct(given, CONVSHIP_OPTIONS_INIT, "convship_options");
  if (known.backend != CONVSHIP_BACKEND_CONVSHIP && known.backend != CONVSHIP_BACKEND_LIBTORCH) {
    fail_usage("convship_options: backend must be CONVSHIP_BACKEND_CONVSHIP or _LIBTORCH, got " +
               std::to_string(known.backend));
  }
  if (known.reserved != 0) fail_usage("convship_options: reserved must be 0");
  options.allow_plain = known.allow_plain != 0;
  options.backend =
      known.backend == CONVSHIP_BACKEND_LIBTORCH ? Backend::libtorch : Backend::convship;
  options.threads = known.threads;
  check_count(known.op_library_count, sizeof(const char*), "op_libraries");
  for (std::size_t i = 0; i < known.op_library_count; ++i) {
    required(known.op_libraries, "op_libraries");
    options.op_libraries.emplace_back(&required(known.op_libraries[i], "op_libraries[]"));
  }
  if (known.public_key != nullptr) {
    options.public_key = known.public_key;
    // Empty would mean that any file is accepted.
    if (options.public_key.empty()) fail_usage("convship_options: public_key must not be empty");
  }
  if (known.log != nullptr) {
    options.log = [log = known.log, user = known.log_user](LogLevel level,
                                                           std::string_view message) {
      log(user, static_cast<convship_log_level>(level), std::string(message).c_str());
    };
  }
  return options;
}

void describe(const std::vector<TensorInfo>& infos, std::size_t index, convship_tensor_info* out) {
  if (index >= infos.size()) {
    fail_usage("index must be below " + std::to_string(infos.size()) + ", got " +
               std::to_string(index));
  }
  const TensorInfo& info = infos[index];
  convship_tensor_info known = CONVSHIP_TENSOR_INFO_INIT;
  known.name = info.name.c_str();
  if (info.dtype) known.dtype = static_cast<convship_dtype>(*info.dtype);
  if (info.shape) {
    known.rank = static_cast<std::int32_t>(info.shape->size());
    known.shape = info.shape->data();
  }
  write_struct(out, known, "convship_tensor_info");
}

}  // namespace

void remember_error(const char* message) noexcept {
  std::snprintf(last_error.data(), last_error.size(), "%s", message);
}

}  // namespace convship::c_api

const char* convship_last_error(void) noexcept { return last_error.data(); }

convship_status convship_get_build(convship_build* out) noexcept {
  return guarded([&] {
    static thread_local Build known;
    known = build();
    write_struct(
        out,
        {sizeof(convship_build), known.convship.c_str(), known.torch.c_str(), known.isa.c_str()},
        "convship_build");
  });
}

convship_status convship_set_threads(int32_t threads) noexcept {
  return guarded([&] { set_threads(threads); });
}

int32_t convship_threads(void) noexcept {
  std::int32_t count = 0;
  guarded([&] { count = threads(); });
  return count;
}

int32_t convship_default_threads(void) noexcept {
  std::int32_t count = 0;
  guarded([&] { count = default_threads(); });
  return count;
}

convship_status convship_model_load(const char* path,
                                    const convship_options* options,
                                    convship_model** model) noexcept {
  return guarded([&] {
    required(model, "model") = nullptr;
    *model = new convship_model(
        Model::load(std::filesystem::path(&required(path, "path")), options_of(options)));
  });
}

convship_status convship_model_load_memory(const void* bytes,
                                           size_t size,
                                           const char* name,
                                           const convship_options* options,
                                           convship_model** model) noexcept {
  return guarded([&] {
    required(model, "model") = nullptr;
    if (bytes == nullptr && size > 0) fail_usage("bytes must not be NULL");
    check_count(size, 1, "bytes");
    *model = new convship_model(Model::load(std::span(static_cast<const std::byte*>(bytes), size),
                                            options_of(options), name == nullptr ? "model" : name));
  });
}

void convship_model_free(convship_model* model) noexcept { free_handle(model); }

convship_status convship_model_manifest(const convship_model* model, const char** json) noexcept {
  return guarded([&] { required(json, "json") = model_of(model).manifest().c_str(); });
}

convship_status convship_model_label_count(const convship_model* model, size_t* count) noexcept {
  return guarded([&] { required(count, "count") = model_of(model).labels().size(); });
}

convship_status convship_model_label(const convship_model* model,
                                     size_t index,
                                     const char** label) noexcept {
  return guarded([&] {
    const auto& labels = model_of(model).labels();
    if (index >= labels.size()) {
      fail_usage("index must be below " + std::to_string(labels.size()) + ", got " +
                 std::to_string(index));
    }
    required(label, "label") = labels[index].c_str();
  });
}

convship_status convship_model_input_count(const convship_model* model, size_t* count) noexcept {
  return guarded([&] { required(count, "count") = model_of(model).inputs().size(); });
}

convship_status convship_model_input(const convship_model* model,
                                     size_t index,
                                     convship_tensor_info* info) noexcept {
  return guarded([&] { describe(model_of(model).inputs(), index, info); });
}

convship_status convship_model_output_count(const convship_model* model, size_t* count) noexcept {
  return guarded([&] { required(count, "count") = model_of(model).outputs().size(); });
}

convship_status convship_model_output(const convship_model* model,
                                      size_t index,
                                      convship_tensor_info* info) noexcept {
  return guarded([&] { describe(model_of(model).outputs(), index, info); });
}

convship_status convship_model_warm_up(const convship_model* model, int64_t batch) noexcept {
  return guarded([&] { model_of(model).warm_up(batch); });
}

convship_status convship_model_selftest(const convship_model* model, size_t* checks) noexcept {
  return guarded([&]() -> convship_status {
    const std::vector<Check> found = model_of(model).selftest();
    if (checks != nullptr) *checks = found.size();
    for (const Check& check : found) {
      if (check.passed) continue;
      remember_error(("golden " + std::to_string(check.golden) + ", " + check.stage +
                      ": largest error " + std::to_string(check.max_error) + ", tolerance " +
                      std::to_string(check.tolerance))
                         .c_str());
      return CONVSHIP_DIFFERENCE;
    }
    return CONVSHIP_OK;
  });
}
