#include <fmt/format.h>

#include <algorithm>

#include "coordinator/cli/checkpoint_export.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/progress_line.h"
#include "proto/base/clock.h"
#include "proto/json/writer.h"

namespace weft::cli {

int checkpoints(const Context& context, const std::string& job) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  proto::CheckpointPage all;
  std::string after;
  do {
    proto::CheckpointPage page;
    const std::string path = job.empty() ? "checkpoints" : "jobs/" + encoded(job) + "/checkpoints";
    const Status status =
        client->get(fmt::format("{}?limit=1000&after={}", path, encoded(after)), page);
    if (!status.ok()) return report(context, status);
    after = page.more() ? page.next() : "";
    all.MergeFrom(page);
  } while (!after.empty());
  if (context.json) {
    print_json(all);
    return kExitOk;
  }
  if (all.checkpoints().empty()) {
    print("no checkpoints yet\n");
    return kExitOk;
  }
  Table table({"ID", "JOB", "ATTEMPT", "STEP", "LOSS", "VALIDATION", "SIZE", "AGE", "WHY"});
  table.drop_first({2, 7});
  for (const size_t column : {2, 3, 4, 5, 6, 7}) table.align_right(column);
  const int64_t now = SystemClock().wall_ms();
  for (const proto::CheckpointManifest& it : all.checkpoints()) {
    table.add({it.id(), it.job(), std::to_string(it.attempt()), std::to_string(it.state().step()),
               show_number(it.loss()),
               it.has_validation_loss() ? show_number(it.validation_loss()) : "-",
               show_bytes(it.bytes()), show_age(it.created_ms(), now), it.why()});
  }
  print(table.text(context.terminal));
  return kExitOk;
}

int remove_checkpoint(const Context& context, const std::string& checkpoint) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  const Status status =
      client->send("DELETE", "checkpoints/" + encoded(checkpoint), nullptr, nullptr);
  if (!status.ok()) return report(context, status);
  tell_deleted(context, checkpoint);
  return kExitOk;
}

int export_checkpoint(const Context& context, const ExportOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  const Result<std::string> checkpoint = checkpoint_of(*client, "CHECKPOINT", options.checkpoint);
  if (!checkpoint) return report(context, checkpoint.error());
  ProgressLine line(context.json);
  const Result<std::string> task = download_export(
      *client, *checkpoint, options.task, options.adapter, options.folder,
      [&](int64_t done, int64_t whole) {
        line.show(fmt::format(
            "{} {} of {}",
            bar(static_cast<double>(done) / static_cast<double>(std::max<int64_t>(whole, 1)), 30),
            show_bytes(done), show_bytes(whole)));
      });
  line.clear();
  if (!task) return report(context, task.error());
  if (context.json) {
    JsonWriter out(2);
    out.begin_object().key("checkpoint").string(*checkpoint).key("task").string(*task);
    out.key("folder").string(options.folder).end_object();
    print(out.take() + "\n");
  } else {
    print(fmt::format("{}{} is in {}\n", *checkpoint,
                      task->empty() ? "" : " with the head of " + *task, options.folder));
  }
  return kExitOk;
}

}  // namespace weft::cli
