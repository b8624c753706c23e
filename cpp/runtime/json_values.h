// Values out of JSON that somebody else wrote. nlohmann-json converts numbers as
// C++ does: 1e300 to int is undefined, -1 to size_t is huge, 1.5 is 1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace convship::runtime {

// An integer of JSON in [least, most]. Throws std::out_of_range, with `what` in
// its text, for anything else.
inline std::int64_t integer_of(const nlohmann::json& value,
                               std::int64_t least,
                               std::int64_t most,
                               const char* what) {
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most) &&
                              static_cast<std::int64_t>(value.get<std::uint64_t>()) >= least
                        : value.is_number_integer() && value.get<std::int64_t>() >= least &&
                              value.get<std::int64_t>() <= most;
  if (!fits) {
    throw std::out_of_range(std::string(what) + " must be an integer in " + std::to_string(least) +
                            " to " + std::to_string(most));
  }
  return value.get<std::int64_t>();
}

// Parses and refuses what is nested more deeply than any of our files, because
// whoever walks it later may do so recursively.
inline nlohmann::json parse_json(const char* begin, const char* end) {
  constexpr int kMostLevels = 64;
  // nlohmann-json takes it for the end, whatever follows.
  if (std::find(begin, end, '\0') != end) throw std::out_of_range("holds a NUL");
  return nlohmann::json::parse(begin, end,
                               [](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
                                 if (depth > kMostLevels)
                                   throw std::out_of_range("nested too deeply");
                                 return true;
                               });
}

}  // namespace convship::runtime
