#include "coordinator/run_coordinator.h"

#include <pthread.h>
#include <signal.h>

#include <cstdio>

#include "cluster/chunks/chunk_store.h"
#include "cluster/rpc/rpc.h"
#include "coordinator/api/api.h"
#include "coordinator/api/api_server.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/data_folder.h"
#include "coordinator/launcher/supervisor.h"

namespace weft {
namespace {

sigset_t block_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return set;
}

Result<std::string> secret(const std::string& path, const CoordinatorOptions& options,
                           const char* name, int bytes) {
  return read_or_make_secret(path.empty() ? options.data + "/" + name : path, bytes);
}

api::ServerOptions api_options(const CoordinatorOptions& options, const std::string& token) {
  api::ServerOptions server;
  server.address = options.listen;
  server.port = options.port;
  server.token = token;
  server.host_names = options.host_names;
  return server;
}

}  // namespace

// Destruction runs backwards: nothing serves any more when what it refers to goes.
Status run_coordinator(const CoordinatorOptions& options) {
  const sigset_t signals = block_signals();
  const Logger log = Logger::open("coordinator");
  const SystemClock clock;
  WEFT_RETURN_IF_ERROR(check_own_folder(options.data));
  WEFT_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::take(options.data));
  WEFT_ASSIGN_OR_RETURN(const std::string token, secret(options.token_file, options, "token", 24));
  WEFT_ASSIGN_OR_RETURN(const std::string join_secret,
                        secret(options.secret_file, options, "join-secret", 32));

  WEFT_ASSIGN_OR_RETURN(auto bytes, open_rocksdb_key_value(options.data + "/jobs"));
  WEFT_ASSIGN_OR_RETURN(const auto store, JobStore::open(std::move(bytes), clock));
  WEFT_ASSIGN_OR_RETURN(const auto chunks, open_chunk_store(options.data + "/chunks"));
  Content content(*chunks, *store, clock);

  SupervisorOptions supervision;
  supervision.cluster = options.cluster;
  supervision.secret = join_secret;
  supervision.lease_seconds = options.lease_seconds;
  supervision.data_folder = options.data;
  Drain drain(clock);
  Inspector inspector(clock);
  Supervisor supervisor({*store, content, clock, log, &drain, &inspector}, supervision);
  CoordinatorService service(
      {*store, content, clock, options.data, WEFT_VERSION, &drain, &inspector});

  const std::string& agent_address =
      options.agent_listen.empty() ? options.listen : options.agent_listen;
  WEFT_ASSIGN_OR_RETURN(const auto rpc, listen(agent_address, options.agent_port, join_secret,
                                               [&](std::shared_ptr<Channel> channel) {
                                                 supervisor.accept(channel);
                                               }));
  WEFT_ASSIGN_OR_RETURN(const auto server, api::ApiServer::start(api_options(options, token),
                                                                 api::make_router(service), log));
  supervisor.start();
  std::printf("weft-coordinator: REST at http://%s:%d, agents at %s:%d\n", options.listen.c_str(),
              server->port(), agent_address.c_str(), rpc->port());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  log.info("stopping; running jobs go on and are found again at the next start");
  server->stop();
  supervisor.stop();
  return {};
}

}  // namespace weft
