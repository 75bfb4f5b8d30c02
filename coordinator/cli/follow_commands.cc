#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "coordinator/cli/commands.h"
#include "proto/json/message_json.h"

namespace weft::cli {
namespace {

const ReadOptions kAnswer = {.allow_output_only = true, .lenient = true};

Color level_color(const std::string& level) {
  if (level == "error") return Color::kRed;
  return level == "warn" ? Color::kYellow : Color::kNone;
}

void print_event(const Context& context, const proto::JobEvent& event) {
  if (context.json) return print_json_line(event);
  std::string text = fmt::format("{}  {:<12} {}", show_time(event.time_ms()), event.type(),
                                 printable(event.message()));
  print(colored(context.terminal, level_color(event.level()), text) + "\n");
  std::fflush(stdout);
}

void print_metric(const Context& context, const proto::MetricRecord& record) {
  if (context.json) return print_json_line(record);
  std::string text = fmt::format("step {:>6}", record.step());
  if (!record.task().empty()) text += "  " + record.task();
  std::vector<std::pair<std::string, double>> values(record.values().begin(),
                                                     record.values().end());
  const auto is_loss = [](const std::string& name) { return name.ends_with("loss"); };
  std::sort(values.begin(), values.end(), [&](const auto& a, const auto& b) {
    return std::pair(!is_loss(a.first), a.first) < std::pair(!is_loss(b.first), b.first);
  });
  for (const auto& [name, value] : values) text += fmt::format("  {} {}", name, show_number(value));
  print(printable(text) + "\n");
  std::fflush(stdout);
}

// Whole logs hold what a rank wrote; on a terminal its control characters are made harmless.
void print_log(const Context& context, const proto::LogPage& page, const std::string& prefix,
               bool& line_start) {
  if (context.json) return print_json_line(page);
  std::string out;
  std::string text = page.text();
  if (context.terminal.is_terminal) {
    for (char& c : text) {
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' && c != '\r') c = ' ';
    }
  }
  for (const char c : text) {
    if (line_start) out += prefix;
    line_start = c == '\n';
    out += c;
  }
  print(out);
  std::fflush(stdout);
}

// Prints every page below `path` ("jobs/x/events?") from the first on.
template <typename Page, typename Show>
Status print_pages(ApiClient& client, const std::string& path, const Show& show) {
  int64_t after = 0;
  while (true) {
    Page page;
    WEFT_RETURN_IF_ERROR(client.get(fmt::format("{}after={}&limit=1000", path, after), page));
    show(page);
    after = page.next();
    if (!page.more()) return Status();
  }
}

Result<std::vector<int>> chosen_ranks(ApiClient& client, const FollowOptions& options) {
  if (options.rank == "launcher") return std::vector<int>{-1};
  if (options.rank != "all" && !options.rank.empty()) return std::vector{std::stoi(options.rank)};
  if (options.rank.empty()) return std::vector<int>{0};
  proto::LogSourceList list;
  WEFT_RETURN_IF_ERROR(client.get_all("jobs/" + encoded(options.job) + "/logs/sources", list));
  int32_t attempt = options.attempt;
  for (const proto::LogSource& source : list.sources()) {
    if (options.attempt == 0) attempt = std::max(attempt, source.attempt());
  }
  std::vector<int> ranks;
  for (const proto::LogSource& source : list.sources()) {
    if (source.attempt() == attempt) ranks.push_back(source.rank());
  }
  return ranks;
}

Status print_whole_log(const Context& context, ApiClient& client, const FollowOptions& options,
                       int rank, const std::string& prefix) {
  int64_t offset = 0;
  bool line_start = true;
  while (true) {
    proto::LogPage page;
    WEFT_RETURN_IF_ERROR(
        client.get(fmt::format("jobs/{}/logs?attempt={}&rank={}&offset={}&limit=1048576",
                               encoded(options.job), options.attempt, rank, offset),
                   page));
    if (page.next() <= offset) break;
    print_log(context, page, prefix, line_start);
    offset = page.next();
    if (offset >= page.bytes()) break;
  }
  if (!line_start && !context.json) print("\n");
  return Status();
}

}  // namespace

int events(const Context& context, const FollowOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  const std::string path = "jobs/" + encoded(options.job) + "/events";
  Status status;
  if (options.follow) {
    status = client->follow(path, [&](const ServerEvent& sent) -> Status {
      if (sent.type != "event") return Status();
      proto::JobEvent event;
      WEFT_RETURN_IF_ERROR(read_json(sent.data, event, kAnswer));
      print_event(context, event);
      return Status();
    });
  } else {
    status = print_pages<proto::EventPage>(*client, path + "?", [&](const auto& page) {
      for (const proto::JobEvent& event : page.events()) print_event(context, event);
    });
  }
  return status.ok() ? kExitOk : report(context, status);
}

int metrics(const Context& context, const FollowOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  std::string path = "jobs/" + encoded(options.job) + "/metrics?";
  if (!options.task.empty()) path += "task=" + encoded(options.task) + "&";
  Status status;
  if (options.follow) {
    path.pop_back();
    status = client->follow(path, [&](const ServerEvent& sent) -> Status {
      if (sent.type != "metric") return Status();
      proto::MetricRecord record;
      WEFT_RETURN_IF_ERROR(read_json(sent.data, record, kAnswer));
      print_metric(context, record);
      return Status();
    });
  } else {
    status = print_pages<proto::MetricPage>(*client, path, [&](const auto& page) {
      for (const proto::MetricRecord& record : page.metrics()) print_metric(context, record);
    });
  }
  return status.ok() ? kExitOk : report(context, status);
}

int logs(const Context& context, const FollowOptions& options) {
  Result<ApiClient> client = ApiClient::connect(context.settings);
  if (!client) return report(context, client.error());
  if (options.follow && options.rank == "all") {
    return report_usage(context, Status::invalid("--rank", "all", "must be one rank with -f"));
  }
  const auto ranks = chosen_ranks(*client, options);
  if (!ranks) return report(context, ranks.error());
  if (options.follow) {
    bool line_start = true;
    const Status status =
        client->follow(fmt::format("jobs/{}/logs?attempt={}&rank={}", encoded(options.job),
                                   options.attempt, ranks->front()),
                       [&](const ServerEvent& sent) -> Status {
                         if (sent.type != "log") return Status();
                         proto::LogPage page;
                         WEFT_RETURN_IF_ERROR(read_json(sent.data, page, kAnswer));
                         print_log(context, page, "", line_start);
                         return Status();
                       });
    return status.ok() ? kExitOk : report(context, status);
  }
  for (const int rank : *ranks) {
    const std::string name = rank < 0 ? "launcher" : fmt::format("rank {}", rank);
    const Status status =
        print_whole_log(context, *client, options, rank, ranks->size() > 1 ? name + ": " : "");
    if (!status.ok()) return report(context, status);
  }
  return kExitOk;
}

}  // namespace weft::cli
