#include "cluster/chunks/rocksdb_base.h"

#include <rocksdb/env.h>

#include <cstdarg>
#include <memory>

namespace weft {
namespace {

class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

}  // namespace

rocksdb::Options rocksdb_base_options() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.avoid_flush_during_recovery = true;
  options.write_buffer_size = 16 << 20;
  options.info_log = std::make_shared<NoLog>();
  return options;
}

}  // namespace weft
