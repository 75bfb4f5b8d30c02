// One line that is written over again, on standard error; nothing where that is no terminal.
// Thread safety: one thread. Ownership: none.
#pragma once

#include <string>

namespace weft::cli {

class ProgressLine {
 public:
  explicit ProgressLine(bool quiet = false);
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool active() const { return active_; }
  int columns() const;  // that a text may take now; a window may change its size
  void show(const std::string& text);
  void clear();

 private:
  bool active_ = false;
  bool shown_ = false;
};

}  // namespace weft::cli
