#include "coordinator/cli/progress_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "coordinator/cli/render.h"

namespace weft::cli {

ProgressLine::ProgressLine(bool quiet) : active_(!quiet && ::isatty(STDERR_FILENO) == 1) {
  winsize size{};
  if (active_ && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    columns_ = size.ws_col;
  }
}

void ProgressLine::show(const std::string& text) {
  if (!active_) return;
  fmt::print(stderr, "\r\x1b[K{}", fit(printable(text), columns_ - 1));
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
