#include "serve/message.h"

#include <nlohmann/json.hpp>

namespace convship::serve {

Reply error_reply(int status, const std::string& message) {
  Reply reply;
  reply.status = status;
  // Names that clients sent need not be UTF-8.
  reply.body = nlohmann::json{{"error", message}}.dump(-1, ' ', false,
                                                       nlohmann::json::error_handler_t::replace);
  return reply;
}

Reply busy_reply(int status, const std::string& message) {
  Reply reply = error_reply(status, message);
  reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

}  // namespace convship::serve
