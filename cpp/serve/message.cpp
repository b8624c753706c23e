#include "serve/message.h"

#include <nlohmann/json.hpp>

namespace convship::serve {

using nlohmann::ordered_json;

Reply json_reply(const ordered_json& body) {
  Reply reply;
  reply.body = body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  return reply;
}

Reply error_reply(int status, const std::string& message) {
  Reply reply = json_reply({{"error", message}});
  reply.status = status;
  return reply;
}

Reply busy_reply(int status, const std::string& message) {
  Reply reply = error_reply(status, message);
  reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

}  // namespace convship::serve
