// One client's connection: requests one after the other, each under limits.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <memory>
#include <optional>
#include <string>

#include "serve/message.h"
#include "serve/metrics.h"
#include "serve/options.h"
#include "serve/stream.h"

namespace convship::serve {

// What all connections of a server share.
struct ConnectionContext {
  const HttpOptions& options;
  Service& service;
  Metrics& metrics;
  asio::io_context& io;
  bool draining = false;
};

class Connection {
 public:
  enum class Phase {
    waiting,    // for the first byte of a request
    receiving,  // the rest of it
    answering,  // the service has it
    replying,
    closing,  // reading what the client still sends, so that it sees the reply
  };

  Connection(ConnectionContext& context, std::unique_ptr<Stream> stream);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Until the client leaves, or close() is called.
  asio::awaitable<void> run();
  void close();
  // Its time is over: it gets a reply where it had begun a request.
  void expire();

  Phase phase() const { return phase_; }
  Clock::time_point since() const { return since_; }  // that phase
  Clock::time_point deadline() const { return deadline_; }

 private:
  struct Exchange;

  void enter(Phase phase, std::chrono::duration<double> most);
  asio::awaitable<bool> exchange();
  asio::awaitable<void> receive(Exchange& exchange);
  asio::awaitable<void> receive_header(Exchange& exchange);
  asio::awaitable<void> receive_body(Exchange& exchange);
  asio::awaitable<void> fill();
  asio::awaitable<Reply> ask(Request request);
  asio::awaitable<void> send(const Exchange& exchange, const Reply& reply, bool keep_alive);
  asio::awaitable<void> linger();
  void charge(std::size_t bytes);

  ConnectionContext& context_;
  std::unique_ptr<Stream> stream_;
  std::string peer_;
  boost::beast::flat_buffer buffer_;
  std::size_t charged_ = 0;  // of the server's budget for bodies
  Phase phase_ = Phase::waiting;
  Clock::time_point since_;
  Clock::time_point deadline_;
  bool is_new_ = true;
  bool expired_ = false;
};

}  // namespace convship::serve
