#include "worker/admission/head_classes.h"

#include <algorithm>

#include "proto/json/job_rules.h"

namespace weft {

bool classifies_alike(const HfFolder& folder, const proto::TaskSpec& task) {
  return folder.labels > 0 && head_kind(task_type_name(task)) == folder.classes;
}

std::vector<std::string> classes_of(const proto::CheckpointManifest* manifest,
                                    const HfFolder* folder, const proto::JobSpec& job,
                                    const proto::TaskSpec& task) {
  std::vector<std::string> names;
  if (folder != nullptr && job.tasks_size() == 1 && classifies_alike(*folder, task)) {
    names = folder->label_names;
  }
  if (manifest == nullptr) return names;
  for (const proto::TaskLabels& labels : manifest->label_names()) {
    if (labels.task() == task.name()) names.assign(labels.names().begin(), labels.names().end());
  }
  return names;
}

bool same_classes(const std::vector<std::string>& then, const std::vector<std::string>& now) {
  return then.empty() || now.empty() ||
         (then.size() <= now.size() && std::equal(then.begin(), then.end(), now.begin()));
}

}  // namespace weft
