#include "coordinator/cli/render.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>

#include "proto/json/names.h"

namespace weft::cli {
namespace {

constexpr int kLastMin = 20;  // columns of a table that is too wide
constexpr int kShrunkMin = 10;

// The next character of `text` and its width; `*bytes` is how many it takes.
int next_width(std::string_view text, size_t* bytes) {
  utf8proc_int32_t code = 0;
  std::string copy(text.substr(0, 4));
  const void* raw = copy.data();
  const auto n = utf8proc_iterate(static_cast<const utf8proc_uint8_t*>(raw),
                                  static_cast<utf8proc_ssize_t>(copy.size()), &code);
  *bytes = n <= 0 ? 1 : static_cast<size_t>(n);
  return n <= 0 ? 1 : utf8proc_charwidth(code);
}

}  // namespace

Terminal find_terminal() {
  Terminal terminal;
  terminal.is_terminal = ::isatty(STDOUT_FILENO) == 1;
  const char* no_color = std::getenv("NO_COLOR");
  const char* type = std::getenv("TERM");
  const bool dumb = type == nullptr || std::string_view(type) == "dumb";
  terminal.colors = terminal.is_terminal && !dumb && (no_color == nullptr || *no_color == '\0');
  winsize size{};
  if (terminal.is_terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.columns = size.ws_col;
  }
  return terminal;
}

int display_width(std::string_view text) {
  int width = 0;
  size_t bytes = 0;
  for (size_t at = 0; at < text.size(); at += bytes) width += next_width(text.substr(at), &bytes);
  return width;
}

std::string printable(std::string_view text) {
  std::string out;
  size_t bytes = 0;
  for (size_t at = 0; at < text.size(); at += bytes) {
    next_width(text.substr(at), &bytes);
    const auto first = static_cast<unsigned char>(text[at]);
    const bool control =  // C0, DEL and C1
        first < 0x20 || first == 0x7f || (bytes == 1 && first >= 0x80) ||
        (first == 0xc2 && bytes == 2 && static_cast<unsigned char>(text[at + 1]) < 0xa0);
    out += control ? std::string(" ") : std::string(text.substr(at, bytes));
  }
  return out;
}

std::string fit(std::string_view text, int width) {
  if (display_width(text) <= width) return std::string(text);
  std::string out;
  int used = 0;
  size_t bytes = 0;
  for (size_t at = 0; at < text.size(); at += bytes) {
    const int w = next_width(text.substr(at), &bytes);
    if (used + w > width - 1) break;
    used += w;
    out += text.substr(at, bytes);
  }
  return width > 0 ? out + "…" : "";
}

std::string colored(const Terminal& terminal, Color color, const std::string& text) {
  static constexpr const char* kCodes[] = {"", "31", "32", "33", "34", "90", "1"};
  if (!terminal.colors || color == Color::kNone) return text;
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<int>(color)], text);
}

void Table::add(std::vector<std::string> cells, Color color, size_t colored_column) {
  for (std::string& cell : cells) cell = printable(cell);
  cells.resize(titles_.size());
  rows_.push_back(Row{std::move(cells), color, colored_column});
}

bool Table::is_right(size_t column) const {
  return std::find(right_.begin(), right_.end(), column) != right_.end();
}

// What is shown of a table: its columns from left to right, each with its width.
Table::Layout Table::layout(const Terminal& terminal) const {
  Layout layout;
  for (size_t i = 0; i < titles_.size(); ++i) {
    layout.columns.push_back(i);
    layout.widths.push_back(display_width(titles_[i]));
    for (const Row& row : rows_) {
      layout.widths[i] = std::max(layout.widths[i], display_width(row.cells[i]));
    }
  }
  if (!terminal.is_terminal) return layout;
  const auto excess = [&] {  // the last column may be cut down to 20
    int total = -2;
    for (const size_t i : layout.columns) {
      const bool last = i == layout.columns.back();
      total += (last ? std::min(layout.widths[i], kLastMin) : layout.widths[i]) + 2;
    }
    return total - terminal.columns;
  };
  for (const size_t column : droppable_) {
    if (excess() > 0) std::erase(layout.columns, column);
  }
  if (excess() > 0 && shrinking_) {
    int& width = layout.widths[*shrinking_];
    width = std::max(std::min(width, kShrunkMin), width - excess());
  }
  int before_last = 0;
  for (const size_t i : layout.columns) {
    if (i != layout.columns.back()) before_last += layout.widths[i] + 2;
  }
  int& last = layout.widths[layout.columns.back()];
  last = std::min(last, std::max(kLastMin, terminal.columns - before_last));
  return layout;
}

std::string Table::text(const Terminal& terminal) const {
  const Layout shown = layout(terminal);
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells, Color color, size_t column,
                        bool title) {
    for (const size_t i : shown.columns) {
      const std::string cell = fit(cells[i], shown.widths[i]);
      const auto pad = static_cast<size_t>(std::max(0, shown.widths[i] - display_width(cell)));
      const std::string text =
          title || i == column ? colored(terminal, title ? Color::kBold : color, cell) : cell;
      out += is_right(i) ? std::string(pad, ' ') + text : text + std::string(pad, ' ');
      if (i != shown.columns.back()) out += "  ";
    }
    while (out.ends_with(' ')) out.pop_back();
    out += "\n";
  };
  line(titles_, Color::kBold, 0, true);
  for (const Row& row : rows_) line(row.cells, row.color, row.colored_column, false);
  return out;
}

std::string show_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string show_seconds(double seconds) {
  if (!(seconds >= 0) || seconds > 1e10) return "-";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

std::string show_time(int64_t ms) {
  if (ms <= 0) return "-";
  const std::time_t seconds = ms / 1000;
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string show_age(int64_t ms, int64_t now_ms) {
  return ms <= 0 ? "-"
                 : show_seconds(static_cast<double>(std::max<int64_t>(0, now_ms - ms)) / 1000);
}

std::string show_number(double value) {
  const double size = std::abs(value);
  return size >= 1000 && size < 1e12 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
}

std::string bar(double fraction, int width) {
  const double clamped = std::clamp(fraction, 0.0, 1.0);
  const auto full = static_cast<size_t>(std::lround(clamped * width));
  return "[" + std::string(full, '#') + std::string(static_cast<size_t>(width) - full, '.') + "]";
}

std::string state_name(proto::JobState state) {
  const auto* value = proto::JobState_descriptor()->FindValueByNumber(state);
  return value == nullptr ? "unknown" : enum_name(*value);
}

Color state_color(proto::JobState state) {
  switch (state) {
    case proto::JOB_STATE_SUCCEEDED:
      return Color::kGreen;
    case proto::JOB_STATE_FAILED:
      return Color::kRed;
    case proto::JOB_STATE_RUNNING:
    case proto::JOB_STATE_STARTING:
      return Color::kBlue;
    case proto::JOB_STATE_PAUSED:
    case proto::JOB_STATE_PAUSING:
    case proto::JOB_STATE_CANCELLING:
      return Color::kYellow;
    case proto::JOB_STATE_CANCELLED:
      return Color::kGray;
    default:
      return Color::kNone;
  }
}

}  // namespace weft::cli
