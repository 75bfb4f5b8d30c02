// A coordinator's service over memory, served on a random port, and a client for it.
// Thread safety: one thread. Ownership: owns everything, in the order of use.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "coordinator/api/api.h"
#include "coordinator/api/api_server.h"
#include "coordinator/coordinator_service.h"
#include "proto/base/hash.h"
#include "tests/coordinator/api/raw_client.h"
#include "tests/coordinator/memory_chunks.h"

namespace weft::api {

struct Served {
  explicit Served(ServerOptions options = {}) {
    options.token = token;
    auto started = ApiServer::start(options, make_router(service), Logger());
    EXPECT_TRUE(started.has_value());
    server = std::move(*started);
  }

  std::string head(const std::string& method, const std::string& path,
                   const std::string& more = "") const {
    return method + " /api/v1/" + path + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " +
           token + "\r\n" + more;
  }
  RawAnswer ask(const std::string& method, const std::string& path, const std::string& body = "",
                const std::string& more = "", const std::string& type = "application/json") const {
    RawClient client(server->port());
    std::string request = head(method, path, more);
    if (!body.empty()) {
      request +=
          "Content-Type: " + type + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    }
    client.send(request + "\r\n" + body);
    return client.answer(method == "HEAD");
  }

  // Uploads `bytes` as an object of one file over REST; its id.
  std::string upload(const std::string& bytes) const {
    const std::string hash = sha256_hex(bytes);
    EXPECT_EQ(ask("PUT", "chunks/" + hash, bytes, "", "application/octet-stream").status, 204);
    const std::string size = std::to_string(bytes.size());
    const RawAnswer answer =
        ask("POST", "objects",
            R"({"files":[{"path":"a.txt","size":)" + size + R"(,"chunks":[{"hash":")" + hash +
                R"(","size":)" + size + "}]}]}");
    EXPECT_EQ(answer.status, 201) << answer.body;
    return value(answer.body, "id");
  }
  // The first string member `name` of a JSON text.
  static std::string value(const std::string& json, const std::string& name) {
    const std::string key = "\"" + name + "\":\"";
    const size_t at = json.find(key);
    if (at == std::string::npos) return "";
    return json.substr(at + key.size(), json.find('"', at + key.size()) - at - key.size());
  }

  std::string job_text(const std::string& object, const std::string& name = "small") const {
    return R"({"name":")" + name +
           R"(","kind":"pretrain","model":{"family":"gpt2","config":)"
           R"({"n_layer":1,"n_head":2,"n_embd":8,"n_positions":16,"vocab_size":257}},)"
           R"("tokenizer":{"type":"byte"},"tasks":[{"type":"causal_lm","data":{"train":")" +
           object + R"("}}],"training":{"steps":10,"sequence_length":16},"labels":{"team":"a"}})";
  }
  std::string submit(const std::string& name = "small") {
    if (data.empty()) data = upload("some text to learn");
    const RawAnswer answer = ask("POST", "jobs", job_text(data, name));
    EXPECT_EQ(answer.status, 201) << answer.body;
    return value(answer.body, "id");
  }
  void set_state(const std::string& id, proto::JobState state, int attempt = 1) {
    ASSERT_TRUE(store->edit_job(id, [&](JobEdit& edit) {
      edit.job.set_state(state);
      edit.job.set_attempt(attempt);
      edit.event("state", "info", state_name(state));
      return Status();
    }));
  }
  void add_metrics(const std::string& id, int count) {
    ASSERT_TRUE(store->edit_job(id, [&](JobEdit& edit) {
      for (int i = 0; i < count; ++i) {
        edit.metrics.emplace_back();
        edit.metrics.back().set_step(i + 1);
        (*edit.metrics.back().mutable_values())["loss"] = 1.5;
      }
      return Status();
    }));
  }

  const std::string token = "0123456789abcdef0123";
  SystemClock clock;
  MemoryChunks chunks;
  std::unique_ptr<JobStore> store = JobStore::open(make_memory_key_value(), clock).value();
  Content content{chunks, *store, clock};
  Inspector inspector{clock};
  CoordinatorService service{{*store, content, clock, "", "test", nullptr, &inspector}};
  std::string data;
  std::unique_ptr<ApiServer> server;
};

}  // namespace weft::api
