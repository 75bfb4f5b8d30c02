#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "coordinator/cli/commands.h"
#include "coordinator/cli/job_file.h"
#include "proto/base/hash.h"
#include "proto/json/writer.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

// A job's name from the data's: letters, digits, "_", "-".
std::string default_name(const std::string& data) {
  std::string name = fs::path(data).lexically_normal().stem().string();
  if (name.empty() || name == ".") name = fs::path(data).parent_path().filename().string();
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-') c = '_';
  }
  while (!name.empty() && (name.front() == '_' || name.front() == '-')) name.erase(0, 1);
  return name.empty() ? "fine-tune" : "tune-" + name;
}

bool is_jsonl(const std::string& data) {
  if (data.ends_with(".jsonl") || data.ends_with(".json")) return true;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(data, error)) {
    if (entry.path().extension() == ".jsonl") return true;
  }
  return false;
}

std::string job_text(const FineTuneOptions& options, const std::string& name) {
  const auto quoted = [](const std::string& text) { return quote_json(text); };
  const bool classifies = options.task == "sequence_classification";
  std::string data = fmt::format("{{train: {}", quoted(options.data));
  if (!options.validation.empty())
    data += fmt::format(", validation: {}", quoted(options.validation));
  data += fmt::format(", format: {}}}", is_jsonl(options.data) ? "jsonl" : "text");
  std::string out = fmt::format(
      "# Written by 'weft fine-tune'; 'weft submit -f' submits it again.\n"
      "name: {}\nkind: fine_tune\nmodel: {{from: {}}}\ntasks:\n"
      "  - name: {}\n    type: {}\n",
      quoted(name), quoted(options.model), classifies ? "classify" : "lm", options.task);
  if (classifies) out += fmt::format("    labels: {}\n", options.labels);
  out += fmt::format("    data: {}\n", data);
  out += fmt::format(
      "training:\n  steps: {}\n  batch_size: {}\n  sequence_length: {}\n  gradient_clip: 1.0\n",
      options.steps, options.batch_size, options.sequence_length);
  if (!options.validation.empty()) {
    out += fmt::format("  evaluate_every: {}\n", std::max(1, options.steps / 10));
  }
  out += fmt::format(
      "  optimizer: {{type: adamw, learning_rate: {}, weight_decay: 0.01}}\n"
      "  schedule: {{type: linear, warmup_steps: {}}}\n",
      options.learning_rate, std::min(options.steps / 10, 100));
  out += fmt::format("checkpoint: {{every_steps: {}, keep_last: 2}}\n",
                     std::max(1, options.steps / 4));
  out += fmt::format("parallel: {{tensor: {}}}\n", options.slots);
  return out;
}

int finish(const Context& context, const FineTuneOptions& options, const std::string& path) {
  SubmitOptions submission;
  submission.file = path;
  submission.wait = options.wait;
  return submit(context, submission);
}

}  // namespace

int fine_tune(const Context& context, const FineTuneOptions& options) {
  const std::string name = options.name.empty() ? default_name(options.data) : options.name;
  if (options.task == "sequence_classification" && options.labels < 2) {
    return report(context, Status::invalid("--labels", std::to_string(options.labels),
                                           "must be given with --task sequence_classification: "
                                           "how many classes there are"));
  }
  const std::string text = job_text(options, name);
  if (options.dry_run) {
    print(text);
    return kExitOk;
  }
  const std::string path = options.file.empty() ? name + ".yaml" : options.file;
  if (const auto old = read_text_file(path); old && *old != text) {
    return report(context, Status::invalid("--file", path,
                                           "must not exist with other content; name another file "
                                           "or remove it"));
  }
  if (Status status = write_text_file(path, text, 0644); !status.ok()) {
    return report(context, status);
  }
  if (!context.json) print("wrote " + path + "\n");
  return finish(context, options, path);
}

}  // namespace weft::cli
