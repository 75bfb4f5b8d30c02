#include "coordinator/cli/usage.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <set>

#include "coordinator/cli/render.h"
#include "coordinator/cli/settings.h"
#include "proto/api.pb.h"
#include "proto/json/names.h"
#include "proto/json/rules.h"
#include "proto/json/value.h"
#include "proto/json/yaml.h"

namespace weft::cli {
namespace {

// A validator without a description: the type's name says it in the help.
CLI::Validator form(std::function<std::string(std::string&)> check) {
  return CLI::Validator(std::move(check), "");
}

std::vector<std::string> state_names() {
  std::vector<std::string> names;
  for (int state = proto::JOB_STATE_QUEUED; state <= proto::JOB_STATE_CANCELLED; ++state) {
    names.push_back(state_name(static_cast<proto::JobState>(state)));
  }
  return names;
}

// Levenshtein's distance.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
    }
  }
  return row.back();
}

}  // namespace

CLI::Validator id() {
  return form([](std::string& text) {
    if (!text.empty() && text.find('/') == std::string::npos) return std::string();
    return fmt::format("'{}' must be an id, as 'weft ls' and 'weft checkpoints' print them",
                       printable(text));
  });
}

CLI::Validator node_name() {
  return form([](std::string& text) {
    const bool good = !text.empty() && text.size() <= 64 && std::ranges::all_of(text, [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
    });
    if (good) return std::string();
    return fmt::format("'{}' must be 1 to 64 letters, digits, '.', '_' or '-'", printable(text));
  });
}

CLI::Validator idempotency_key() {
  return form([](std::string& text) {
    const bool visible = std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
    if (visible && !text.empty() && text.size() <= 200) return std::string();
    return fmt::format("'{}' must have 1 to 200 visible ASCII characters",
                       shortened(printable(text)));
  });
}

CLI::Validator key_and_value() {
  return form([](std::string& text) {
    const size_t equals = text.find('=');
    const bool good = equals != std::string::npos && equals > 0;
    return good ? std::string() : fmt::format("'{}' must be KEY=VALUE", printable(text));
  });
}

CLI::Validator mesh() {
  return form([](std::string& text) {
    const auto parsed = parse_mesh(text);
    return parsed ? std::string() : printable(parsed.error().to_string());
  });
}

std::string state_choices() { return fmt::format("{}", fmt::join(state_names(), ",")); }

CLI::Validator job_states() {
  return form([](std::string& text) {
    const std::vector<std::string> names = state_names();
    for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
      end = text.find(',', at);
      const std::string part = text.substr(at, end == std::string::npos ? end : end - at);
      if (std::find(names.begin(), names.end(), part) == names.end()) {
        return fmt::format("'{}' must be one of {}", printable(part), fmt::join(names, ", "));
      }
    }
    return std::string();
  });
}

CLI::Validator rank_choice() {
  return form([](std::string& text) {
    const bool number = !text.empty() && text.size() < 9 &&
                        text.find_first_not_of("0123456789") == std::string::npos;
    if (number || text == "all" || text == "launcher") return std::string();
    return fmt::format("'{}' must be a number, all or launcher", printable(text));
  });
}

CLI::Validator ipv4_address() {
  return form([](std::string& text) {
    in_addr parsed{};
    if (::inet_pton(AF_INET, text.c_str(), &parsed) == 1) return std::string();
    return fmt::format("'{}' must be an IPv4 address of this machine", printable(text));
  });
}

CLI::Validator whole_number_from(int64_t min, int64_t max) {
  return form([min, max](std::string& text) {
    int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc() && stop == end && value >= min && value <= max) return std::string();
    return fmt::format("'{}' must be a whole number from {} to {}", printable(text), min, max);
  });
}

CLI::Validator number_from(double min, double max) {
  return form([min, max](std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && value >= min && value <= max) return std::string();
    return fmt::format("'{}' must be a number from {} to {}", printable(text), min, max);
  });
}

CLI::Validator server_address() {
  return form([](std::string& text) {
    const Result<Endpoint> parsed = parse_server(text);
    if (parsed) return std::string();
    return fmt::format("'{}' {}", printable(text), parsed.error().rule());
  });
}

Result<proto::ParallelSpec> parse_mesh(const std::string& text) {
  proto::ResumeRequest request;
  if (text.find('=') == std::string::npos) {
    WEFT_RETURN_IF_ERROR(set_path(request, "parallel", text));
  } else {
    std::set<std::string> paths;
    for (const std::string& part : CLI::detail::split(text, ',')) {
      const size_t equals = std::min(part.find('='), part.size());
      const std::string value = equals < part.size() ? part.substr(equals + 1) : "";
      const std::string path = "parallel." + part.substr(0, equals);
      WEFT_RETURN_IF_ERROR(set_path(request, path, value));
      if (!paths.insert(path).second) {
        return fail(Status::invalid(path, value, "is written twice; keep one of the two"));
      }
    }
  }
  WEFT_RETURN_IF_ERROR(check_rules(request));
  return request.parallel();
}

std::string nearest(const std::string& word, const std::vector<std::string>& words) {
  std::string best;
  size_t best_distance = word.size() / 3 + 1;  // more is another word
  for (const std::string& candidate : words) {
    const size_t d = distance(word, candidate);
    if (d <= best_distance && (best.empty() || d < best_distance)) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

}  // namespace weft::cli
