#include "serve/connection.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdio>
#include <ctime>
#include <random>

namespace convship::serve {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr std::size_t kReadBytes = std::size_t{64} << 10;
constexpr std::chrono::seconds kLinger{2};

// Why a request was not received.
struct Refusal {
  Reply reply;
  std::optional<Rejection> why = {};
};

std::string new_id() {
  static const std::uint64_t base = [] {
    std::random_device random;
    return (std::uint64_t{random()} << 32) | random();
  }();
  static std::atomic<std::uint64_t> count = 0;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(base + count.fetch_add(1)));
  return text;
}

// Goes into a header and into the log.
bool is_clean(std::string_view id) {
  constexpr std::size_t kLongest = 128;
  return !id.empty() && id.size() <= kLongest &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127; });
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  static thread_local std::time_t last = 0;
  static thread_local char text[64] = "";
  if (now != last) {
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    last = now;
  }
  return text;
}

std::string to_string(beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

struct Connection::Exchange {
  http::request_parser<http::string_body> parser;
  Request request;  // its body stays in the parser until all of it is there

  void read_header(const std::string& peer) {
    const auto& header = parser.get();
    request.peer = peer;
    request.method = to_string(header.method_string());
    const std::string target = to_string(header.target());
    const std::size_t mark = target.find('?');
    request.path = target.substr(0, mark);
    if (mark != std::string::npos) request.query = target.substr(mark + 1);
    request.authorization = to_string(header[http::field::authorization]);
    request.content_type = to_string(header[http::field::content_type]);
    request.content_encoding = to_string(header[http::field::content_encoding]);
    const auto length = header.find("Inference-Header-Content-Length");
    if (length != header.end()) request.inference_header_length = to_string(length->value());
    const std::string id = to_string(header["X-Request-Id"]);
    if (is_clean(id)) request.id = id;
  }
};

Connection::Connection(ConnectionContext& context, std::unique_ptr<Stream> stream)
    : context_(context),
      stream_(std::move(stream)),
      buffer_(context.options.max_header_bytes + 2 * kReadBytes) {
  error_code ignored;
  const auto endpoint = stream_->socket().remote_endpoint(ignored);
  peer_ = endpoint.address().to_string();
  stream_->socket().set_option(tcp::no_delay(true), ignored);
  ++context_.metrics.connections;
  enter(Phase::waiting, context_.options.read_timeout);
}

Connection::~Connection() {
  charge(0);
  --context_.metrics.connections;
}

void Connection::enter(Phase phase, std::chrono::duration<double> most) {
  phase_ = phase;
  since_ = Clock::now();
  deadline_ = since_ + std::chrono::duration_cast<Clock::duration>(most);
}

void Connection::close() {
  error_code ignored;
  stream_->socket().close(ignored);
}

void Connection::expire() {
  if (phase_ != Phase::receiving || expired_) return close();
  context_.metrics.count_rejection(Rejection::timeout);
  expired_ = true;
  deadline_ = Clock::time_point::max();  // of the reply, from now on
  error_code ignored;
  stream_->socket().cancel(ignored);
}

// Bodies in memory count against a budget of all connections.
void Connection::charge(std::size_t bytes) {
  context_.metrics.buffered_bytes +=
      static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(charged_);
  charged_ = bytes;
}

asio::awaitable<void> Connection::run() {
  try {
    co_await stream_->handshake();
    for (bool more = true; more;) more = co_await exchange();
  } catch (const std::exception&) {
    // The client left, or has been cut, or there is no memory for it.
  }
  close();
}

asio::awaitable<void> Connection::fill() {
  try {
    const std::size_t count = co_await stream_->read(buffer_.prepare(kReadBytes));
    buffer_.commit(count);
  } catch (const boost::system::system_error&) {
    if (!expired_) throw;
    throw Refusal{error_reply(408, "the whole request must arrive within the server's time-out"),
                  {}};
  }
}

asio::awaitable<void> Connection::receive_header(Exchange& exchange) {
  auto& parser = exchange.parser;
  parser.header_limit(static_cast<std::uint32_t>(context_.options.max_header_bytes));
  parser.body_limit(context_.options.max_body_bytes);
  for (;;) {
    if (buffer_.size() > 0) {
      if (phase_ == Phase::waiting) enter(Phase::receiving, context_.options.read_timeout);
      error_code error;
      buffer_.consume(parser.put(buffer_.data(), error));
      if (parser.is_header_done() || error == http::error::body_limit) {
        exchange.read_header(peer_);
      }
      if (error == http::error::header_limit) {
        throw Refusal{
            error_reply(431, "the header must have at most " +
                                 std::to_string(context_.options.max_header_bytes) + " bytes"),
            Rejection::header_size};
      }
      if (error == http::error::body_limit) {
        throw Refusal{
            error_reply(413, "the body must have at most " +
                                 std::to_string(context_.options.max_body_bytes) +
                                 " bytes (--max-body-mib); send fewer rows or a smaller image"),
            Rejection::body_size};
      }
      if (error && error != http::error::need_more) {
        throw Refusal{error_reply(400, "the request is no HTTP/1.1: " + error.message())};
      }
      if (parser.is_header_done()) co_return;
    }
    co_await fill();
  }
}

asio::awaitable<void> Connection::receive_body(Exchange& exchange) {
  auto& parser = exchange.parser;
  const auto& options = context_.options;
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    std::vector<asio::const_buffer> buffers{asio::buffer(kContinue)};
    co_await stream_->write(std::move(buffers));
  }
  enter(Phase::receiving, options.read_timeout);
  parser.eager(true);
  while (!parser.is_done()) {
    if (buffer_.size() > 0) {
      error_code error;
      const std::size_t used = parser.put(buffer_.data(), error);
      buffer_.consume(used);
      if (error == http::error::body_limit) {
        throw Refusal{error_reply(413, "the body must have at most " +
                                           std::to_string(options.max_body_bytes) +
                                           " bytes (--max-body-mib)"),
                      Rejection::body_size};
      }
      if (error && error != http::error::need_more) {
        throw Refusal{error_reply(400, "the body is no HTTP/1.1: " + error.message())};
      }
      charge(parser.get().body().size());
      if (context_.metrics.buffered_bytes > static_cast<std::int64_t>(options.max_buffered_bytes)) {
        throw Refusal{busy_reply(429,
                                 "the requests in memory fill the server's budget; try again "
                                 "later"),
                      Rejection::memory};
      }
      if (used > 0) continue;
    }
    co_await fill();
  }
  exchange.request.body = std::move(parser.get().body());
}

asio::awaitable<void> Connection::receive(Exchange& exchange) {
  co_await receive_header(exchange);
  if (auto refused = context_.service.refuse(exchange.request)) throw Refusal{std::move(*refused)};
  co_await receive_body(exchange);
}

asio::awaitable<Reply> Connection::ask(Request request) {
  return asio::async_initiate<decltype(asio::use_awaitable), void(Reply)>(
      [this, request = std::move(request)](auto handler) mutable {
        // A Done may be copied, the handler may not.
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        context_.service.answer(std::move(request), [&io = context_.io, shared](Reply reply) {
          asio::post(io,
                     [shared, reply = std::move(reply)]() mutable { (*shared)(std::move(reply)); });
        });
      },
      asio::use_awaitable);
}

asio::awaitable<bool> Connection::exchange() {
  // A new connection has a request to send, one that had an answer may rest.
  enter(Phase::waiting, is_new_ ? context_.options.read_timeout : context_.options.idle_timeout);
  is_new_ = false;
  if (context_.draining && buffer_.size() == 0) co_return false;
  Exchange exchange;
  std::optional<Refusal> refusal;
  try {
    co_await receive(exchange);
  } catch (Refusal& caught) {
    refusal = std::move(caught);
  }
  Request& request = exchange.request;
  if (request.id.empty()) request.id = new_id();
  Reply reply;
  if (refusal) {
    if (refusal->why) context_.metrics.count_rejection(*refusal->why);
    reply = std::move(refusal->reply);
  } else {
    enter(Phase::answering, std::chrono::hours(24));
    request.arrived = Clock::now();
    Request asked = request;
    asked.body = std::move(request.body);
    request.body.clear();
    reply = co_await ask(std::move(asked));
  }
  const bool keep_alive = !refusal && exchange.parser.keep_alive() && !context_.draining;
  charge(0);
  context_.service.finished(request, reply);
  co_await send(exchange, reply, keep_alive);
  if (refusal) co_await linger();
  co_return keep_alive;
}

asio::awaitable<void> Connection::send(const Exchange& exchange,
                                       const Reply& reply,
                                       bool keep_alive) {
  enter(Phase::replying, context_.options.write_timeout);
  const http::status status = http::int_to_status(static_cast<unsigned>(reply.status));
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " " +
                     to_string(http::obsolete_reason(status)) + "\r\nDate: " + http_date() +
                     "\r\nContent-Type: " + reply.content_type +
                     "\r\nContent-Length: " + std::to_string(reply.body.size()) +
                     "\r\nConnection: " + (keep_alive ? "keep-alive" : "close") +
                     "\r\nX-Request-Id: " + exchange.request.id +
                     "\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  head += "\r\n";
  std::vector<asio::const_buffer> buffers;
  buffers.push_back(asio::buffer(head));
  if (exchange.request.method != "HEAD") buffers.push_back(asio::buffer(reply.body));
  co_await stream_->write(std::move(buffers));
}

// A client that is still sending would be reset, and never read the reply.
asio::awaitable<void> Connection::linger() {
  enter(Phase::closing, kLinger);
  error_code ignored;
  stream_->socket().shutdown(tcp::socket::shutdown_send, ignored);
  buffer_.consume(buffer_.size());
  for (;;) co_await stream_->read(buffer_.prepare(kReadBytes));
}

}  // namespace convship::serve
