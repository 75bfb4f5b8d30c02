#include "proto/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace weft {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

Logger Logger::open(const std::string& component, const std::string& path) {
  Logger logger;
  spdlog::sink_ptr sink;
  if (!path.empty()) {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
    } catch (const spdlog::spdlog_ex&) {
      sink = nullptr;  // the file cannot be opened: standard error has to do
    }
  }
  if (!sink) sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  logger.sink_ = std::make_shared<spdlog::logger>(component, sink);
  logger.sink_->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n %v");
  logger.sink_->set_error_handler([](const std::string&) {});
  logger.sink_->flush_on(spdlog::level::info);
  return logger;
}

void Logger::set_level(LogLevel level) {
  if (sink_) sink_->set_level(spdlog_level(level));
}

void Logger::write(LogLevel level, const std::string& line) const {
  if (sink_) sink_->log(spdlog_level(level), line);
}

}  // namespace weft
