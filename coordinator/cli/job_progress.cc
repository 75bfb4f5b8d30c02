#include "coordinator/cli/job_progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "coordinator/cli/render.h"

namespace weft::cli {
namespace {

constexpr int kBarMin = 8, kBarMax = 40;
constexpr int kTasksMax = 4;  // of more tasks a line has no room for the losses

struct Part {
  std::string text;
  int importance = 0;  // the lowest goes first
};

bool trains(const proto::Job& job) {
  return job.state() == proto::JOB_STATE_RUNNING || job.state() == proto::JOB_STATE_PAUSING ||
         job.state() == proto::JOB_STATE_CANCELLING;
}

// Of several tasks each one's newest: a step is one task's, so the job's loss goes up and down.
std::string loss_text(const proto::Job& job) {
  const std::string newest = " " + show_number(job.loss());
  const int tasks = job.spec().tasks_size();
  if (tasks < 2 || tasks > kTasksMax) return "loss" + newest;
  std::string text;
  for (const proto::TaskSpec& task : job.spec().tasks()) {
    const auto found = job.results().find(task.name() + ".loss");
    if (found != job.results().end()) text += " " + task.name() + " " + show_number(found->second);
  }
  return "loss" + (text.empty() ? newest : printable(text));
}

// In the order in which they are shown.
std::vector<Part> parts_of(const proto::Job& job) {
  std::vector<Part> parts;
  if (job.steps() > 0) parts.push_back({fmt::format("step {}/{}", job.step(), job.steps()), 9});
  if (job.has_loss()) parts.push_back({loss_text(job), 8});
  if (job.has_validation_loss()) {
    parts.push_back({"validation " + show_number(job.validation_loss()), 3});
  }
  if (trains(job) && job.has_tokens_per_second()) {
    parts.push_back({show_number(job.tokens_per_second()) + " tokens/s", 5});
  }
  if (trains(job) && job.has_seconds_left()) {
    parts.push_back({show_seconds(job.seconds_left()) + " left", 7});
  }
  if (!job.reason().empty()) parts.push_back({"(" + printable(job.reason()) + ")", 4});
  return parts;
}

std::string joined(const std::vector<Part>& parts) {
  std::string text;
  for (const Part& part : parts) text += " " + part.text;
  return text;
}

}  // namespace

std::string progress_text(const proto::Job& job) {
  return fmt::format("{} {}", job.id(), state_name(job.state())) + joined(parts_of(job));
}

std::string progress_bar(const proto::Job& job, int columns) {
  const double fraction =
      job.steps() > 0 ? static_cast<double>(job.step()) / static_cast<double>(job.steps()) : 0;
  const std::string state = state_name(job.state());
  // A whole percent is full only when the last step is done.
  const std::string percent = fmt::format("{:3d}%", static_cast<int>(fraction * 100));
  const int fixed = display_width(state) + 1 + kBarMin + 2 + 1 + display_width(percent);
  std::vector<Part> parts = parts_of(job);
  while (!parts.empty() && fixed + display_width(joined(parts)) > columns) {
    parts.erase(std::min_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.importance < b.importance;
    }));
  }
  const std::string rest = joined(parts);
  const int room = columns - fixed - display_width(rest);
  const int width = std::min(kBarMax, kBarMin + std::max(0, room));
  return fmt::format("{} {} {}{}", state, bar(fraction, width), percent, rest);
}

}  // namespace weft::cli
