// What every database of ours shares: the options that keep acknowledged writes, and no log file of
// RocksDB's own. Only for the two folders that use RocksDB.
#pragma once

#include <rocksdb/options.h>

namespace weft {

// Recovery refuses a write-ahead log that was damaged in its middle and accepts a torn tail (the
// default would drop acknowledged writes); opening needs little room. RocksDB's own log file is not
// written: at its first line after the disk was full, an assertion in its writer aborts the
// process, and what matters comes back as a status.
rocksdb::Options rocksdb_base_options();

}  // namespace weft
