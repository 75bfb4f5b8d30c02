// One connection of the REST server. Included by listener.cc and session.cc only, because it shows
// Boost.Asio.
//
// Thread safety: a session runs on one strand; the context is shared by all sessions and const but
// for its atomic counters. Ownership: the server owns the context, its I/O threads and its pool.
#pragma once

#include <utility>

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/thread_pool.hpp>

#include "coordinator/api/api_server.h"
#include "coordinator/api/guard.h"

namespace weft::api {

struct SessionContext {
  SessionContext(ServerOptions o, Router r, Logger l)
      : options(std::move(o)),
        router(std::move(r)),
        logger(std::move(l)),
        guard(options.token, options.host_names),
        handlers(static_cast<size_t>(options.handler_threads)) {}

  const ServerOptions options;
  const Router router;
  const Logger logger;
  const Guard guard;
  boost::asio::thread_pool handlers;
  std::atomic<int> connections{0};
};

// Serves the connection until it ends; never throws.
boost::asio::awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket,
                                              SessionContext& context);

}  // namespace weft::api
