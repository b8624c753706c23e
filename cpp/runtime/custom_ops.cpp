#include "custom_ops.h"

#include <algorithm>
#include <cctype>

namespace convship::runtime {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// The end of the string literal or comment that begins at `at`, else `at`.
std::size_t skip_text(std::string_view source, std::size_t at) {
  if (source[at] == '#') return std::min(source.find('\n', at), source.size());
  const char quote = source[at];
  if (quote != '"' && quote != '\'') return at;
  for (std::size_t i = at + 1; i < source.size(); ++i) {
    if (source[i] == '\\') {
      ++i;
    } else if (source[i] == quote) {
      return i + 1;
    }
  }
  return source.size();
}

std::string_view word_at(std::string_view source, std::size_t at) {
  std::size_t end = at;
  while (end < source.size() && is_word(source[end])) ++end;
  return source.substr(at, end - at);
}

}  // namespace

void collect_custom_ops(std::string_view source, std::set<std::string>& ops) {
  constexpr std::string_view kPrefix = "ops.";
  for (std::size_t at = 0; at < source.size();) {
    const std::size_t skipped = skip_text(source, at);
    if (skipped != at) {
      at = skipped;
      continue;
    }
    const bool starts_word = at == 0 || (!is_word(source[at - 1]) && source[at - 1] != '.');
    if (!starts_word || !source.substr(at).starts_with(kPrefix)) {
      ++at;
      continue;
    }
    at += kPrefix.size();
    const std::string_view space = word_at(source, at);
    at += space.size();
    if (space.empty() || at >= source.size() || source[at] != '.') continue;
    const std::string_view name = word_at(source, ++at);
    at += name.size();
    // The parser itself knows torch's own. Only a call is an operator; anything
    // else is an attribute of something called ops.
    if (space != "prim" && space != "aten" && !name.empty() && at < source.size() &&
        source[at] == '(') {
      ops.insert(std::string(space) + "::" + std::string(name));
    }
  }
}

}  // namespace convship::runtime
