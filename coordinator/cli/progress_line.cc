#include "coordinator/cli/progress_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "coordinator/cli/render.h"

namespace weft::cli {

ProgressLine::ProgressLine(bool quiet) : active_(!quiet && ::isatty(STDERR_FILENO) == 1) {
  const char* type = std::getenv("TERM");
  if (type == nullptr || std::string_view(type) == "dumb") active_ = false;  // cannot clear a line
}

int ProgressLine::columns() const {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return (known ? size.ws_col : 80) - 1;
}

void ProgressLine::show(const std::string& text) {
  if (!active_) return;
  fmt::print(stderr, "\r\x1b[K{}", fit(printable(text), columns()));
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace weft::cli
