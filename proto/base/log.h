// One logger a program or rank, handed down as a value; lines carry time, level and the component.
// Thread safety: any thread. Ownership: copies share one sink. A sink that cannot be written to
// (full disk) drops lines; it never throws and never blocks training.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>

namespace spdlog {
class logger;
}

namespace weft {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

class Logger {
 public:
  Logger() = default;  // drops everything
  // `path` empty: standard error.
  static Logger open(const std::string& component, const std::string& path = "");

  void set_level(LogLevel level);
  template <typename... Args>
  void debug(fmt::format_string<Args...> f, Args&&... args) const {
    write(LogLevel::kDebug, fmt::format(f, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void info(fmt::format_string<Args...> f, Args&&... args) const {
    write(LogLevel::kInfo, fmt::format(f, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void warn(fmt::format_string<Args...> f, Args&&... args) const {
    write(LogLevel::kWarn, fmt::format(f, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void error(fmt::format_string<Args...> f, Args&&... args) const {
    write(LogLevel::kError, fmt::format(f, std::forward<Args>(args)...));
  }

 private:
  void write(LogLevel level, const std::string& line) const;
  std::shared_ptr<spdlog::logger> sink_;
};

}  // namespace weft
