// A request as the network delivers it, and the reply to it. No HTTP library
// appears here: only http_server.cpp and connection.cpp know one.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace convship::serve {

using Clock = std::chrono::steady_clock;

struct Request {
  std::string id;    // of the client (X-Request-Id), or made here
  std::string peer;  // address of the client
  std::string method;
  std::string path;   // as sent, without the query
  std::string query;  // what follows the "?"
  std::string authorization;
  std::string content_type;
  std::string content_encoding;
  std::optional<std::string> inference_header_length;  // Inference-Header-Content-Length
  std::string body;
  Clock::time_point arrived;  // when the body was complete
};

// What the log and the metrics tell of a request beside its status.
struct Trace {
  std::string model;
  std::int64_t rows = 0;        // of the request
  std::int64_t batch_rows = 0;  // of the call that answered it
  double queue_seconds = 0;
};

struct Reply {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  Trace trace = {};
};

// Takes the reply; called once, from any thread.
using Done = std::function<void(Reply)>;

class Service {
 public:
  virtual ~Service() = default;
  // Asked before the body is read: a reply refuses the request.
  virtual std::optional<Reply> refuse(const Request& request) = 0;
  // Called by the thread of the network, so it must not compute.
  virtual void answer(Request request, Done done) = 0;
  // The reply is about to be written.
  virtual void finished(const Request& request, const Reply& reply) = 0;
};

// Names that clients sent need not be UTF-8: what is not is replaced.
Reply json_reply(const nlohmann::ordered_json& body);
// {"error": "..."}, as the Open Inference Protocol wants it.
Reply error_reply(int status, const std::string& message);
// The reply to somebody who should come back later.
Reply busy_reply(int status, const std::string& message);

}  // namespace convship::serve
