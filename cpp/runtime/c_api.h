// What the files of the C interface share: handles that can be recognised,
// structs of other versions, and the border that no exception crosses.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "convship/convship.h"
#include "convship/error.h"

namespace convship::c_api {

// For convship_last_error of this thread. Never throws: long texts are cut.
void remember_error(const char* message) noexcept;

[[noreturn]] inline void fail_usage(const std::string& message) {
  throw Error(ErrorCode::usage, message);
}

// pthread_cancel unwinds a thread's stack as an exception would, which may not
// cross this border either; the thread ends at its next cancellation point after.
class NoCancellation {
 public:
  NoCancellation() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~NoCancellation() { pthread_setcancelstate(before_, nullptr); }
  NoCancellation(const NoCancellation&) = delete;
  NoCancellation& operator=(const NoCancellation&) = delete;

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

// Runs `work`, which returns a status or nothing; exceptions become a status
// and this thread's error text.
template <typename Work>
convship_status guarded(const Work& work) noexcept {
  const NoCancellation no_cancellation;
  try {
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      return CONVSHIP_OK;
    } else {
      return work();
    }
  } catch (const Error& error) {
    remember_error(error.what());
    return static_cast<convship_status>(error.code());
  } catch (const std::bad_alloc&) {
    remember_error("not enough memory");
    return CONVSHIP_ENVIRONMENT;
  } catch (const std::exception& error) {
    remember_error(error.what());
    return CONVSHIP_INTERNAL;
  } catch (...) {
    remember_error("an exception of unknown type");
    return CONVSHIP_INTERNAL;
  }
}

// What a handle points at begins with a mark of its type, so that a wrong or
// freed one is mostly recognised instead of read.
template <typename Handle>
class Marked {
 public:
  Marked() = default;
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;
  // Written through volatile: to a compiler a dying object's mark is dead too.
  ~Marked() { *const_cast<volatile std::uint64_t*>(&mark_) = 0; }
  bool is_marked() const noexcept { return mark_ == Handle::kMark; }

 private:
  std::uint64_t mark_ = Handle::kMark;
};

template <typename Handle>
const Handle& checked(const Handle* handle, const char* name) {
  if (handle == nullptr) fail_usage(std::string(name) + " must not be NULL");
  if (!handle->is_marked()) {
    fail_usage(std::string(name) + " is no such handle; was it freed, or one of another type?");
  }
  return *handle;
}

// What convship_NAME_free does: NULL and what is no such handle are left alone.
template <typename Handle>
void free_handle(Handle* handle) noexcept {
  const NoCancellation no_cancellation;
  if (handle != nullptr && handle->is_marked()) delete handle;
}

template <typename T>
T& required(T* pointer, const char* name) {
  if (pointer == nullptr) fail_usage(std::string(name) + " must not be NULL");
  return *pointer;
}

// Every version of a struct ends where the next pointer could begin; half of one
// is never taken for the whole.
inline void check_struct_size(std::size_t size, const char* type) {
  if (size >= sizeof(std::size_t) && size <= 4096 && size % alignof(void*) == 0) return;
  fail_usage(std::string(type) + ": struct_size must be sizeof(" + type + "), got " +
             std::to_string(size) + "; start from its _INIT");
}

// A struct of the caller as this version knows it: fields that an older header
// lacks are as in `init`; fields that only a newer one has must be zero.
template <typename T>
T read_struct(const T* given, const T& init, const char* type) {
  const std::size_t size = required(given, type).struct_size;
  check_struct_size(size, type);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (size > sizeof(T) &&
      std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    fail_usage(std::string(type) +
               ": a field is set that this version of libconvship lacks; "
               "update the library");
  }
  T known = init;
  std::memcpy(&known, bytes, std::min(size, sizeof(T)));
  return known;
}

// The element of an array of structs, whose size the first of them tells.
template <typename T>
T read_element(const T* array, std::size_t index, const T& init, const char* type) {
  const std::size_t stride = required(array, type).struct_size;
  check_struct_size(stride, type);
  const auto* element =
      reinterpret_cast<const T*>(reinterpret_cast<const unsigned char*>(array) + index * stride);
  const T known = read_struct(element, init, type);
  if (known.struct_size != stride) {
    fail_usage(std::string(type) + ": all elements of an array must have one struct_size");
  }
  return known;
}

// No CPU gives a process more bytes than that.
inline constexpr std::size_t kAddressSpace = std::size_t{1} << 56;

// An array of so many elements of `size` bytes cannot be: somebody's arithmetic
// went below zero.
inline void check_count(std::size_t count, std::size_t size, const char* name) {
  if (count <= kAddressSpace / size) return;
  fail_usage(std::string(name) + ": there is no array of " + std::to_string(count) + " elements");
}

// convert(element, index) of each, in order.
template <typename T, typename Convert>
auto read_elements(
    const T* array, std::size_t count, const T& init, const char* type, const Convert& convert) {
  check_count(count, sizeof(T), type);
  std::vector<decltype(convert(init, count))> converted;
  for (std::size_t i = 0; i < count; ++i) {
    converted.push_back(convert(read_element(array, i, init, type), i));
  }
  return converted;
}

// Fills as much of the caller's struct as its header knows.
template <typename T>
void write_struct(T* to, T value, const char* type) {
  const std::size_t size = required(to, type).struct_size;
  check_struct_size(size, type);
  value.struct_size = size;
  std::memcpy(to, &value, std::min(size, sizeof(T)));
}

}  // namespace convship::c_api
