// What people see: tables, bars, times, sizes; plain where the output is no terminal or NO_COLOR is
// set.
//
// Thread safety: pure functions and values. Ownership: none.
// Invariant: text that came from elsewhere never moves the cursor: control characters are shown as
// spaces.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proto/job.pb.h"

namespace weft::cli {

enum class Color { kNone, kRed, kGreen, kYellow, kBlue, kGray, kBold };

struct Terminal {
  bool is_terminal = false;  // standard output
  bool colors = false;
  int columns = 80;
};
Terminal find_terminal();

// Columns that `text` takes on a terminal (wide characters take two, combining ones none).
int display_width(std::string_view text);
std::string printable(std::string_view text);
// Cut to `width` columns, with "…" where something was cut.
std::string fit(std::string_view text, int width);
std::string colored(const Terminal& terminal, Color color, const std::string& text);

class Table {
 public:
  explicit Table(std::vector<std::string> titles) : titles_(std::move(titles)) {}
  void align_right(size_t column) { right_.push_back(column); }
  void add(std::vector<std::string> cells, Color color = Color::kNone, size_t colored_column = 0);
  bool empty() const { return rows_.empty(); }
  // Where the terminal is too narrow these columns go, in this order; then this one is cut.
  void drop_first(std::vector<size_t> columns) { droppable_ = std::move(columns); }
  void shrink(size_t column) { shrinking_ = column; }
  // The last column is cut to the terminal's width as well; without a terminal nothing is.
  std::string text(const Terminal& terminal) const;

 private:
  struct Row {
    std::vector<std::string> cells;
    Color color = Color::kNone;
    size_t colored_column = 0;
  };
  struct Layout {
    std::vector<size_t> columns;
    std::vector<int> widths;  // of all columns
  };
  bool is_right(size_t column) const;
  Layout layout(const Terminal& terminal) const;
  std::vector<std::string> titles_;
  std::vector<size_t> right_, droppable_;
  std::optional<size_t> shrinking_;
  std::vector<Row> rows_;
};

std::string show_bytes(int64_t bytes);     // "3.4 MiB"
std::string show_seconds(double seconds);  // "2h05m", "3m20s", "12s"
std::string show_time(int64_t ms);         // local, "2024-05-01 13:05:09"; 0: "-"
std::string show_age(int64_t ms, int64_t now_ms);
std::string show_number(double value);        // four significant digits; from 1000 on whole
std::string bar(double fraction, int width);  // "[#####.....]"
std::string state_name(proto::JobState state);
Color state_color(proto::JobState state);

}  // namespace weft::cli
