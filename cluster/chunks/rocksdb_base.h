// What every database of ours shares: the options that keep acknowledged writes, and no log file of
// RocksDB's own. Only for the two folders that use RocksDB.
#pragma once

#include <rocksdb/options.h>

#include <string>

namespace weft {

// Recovery refuses a write-ahead log that was damaged in its middle and accepts a torn tail (the
// default would drop acknowledged writes); opening needs little room. RocksDB's own log file is not
// written: at its first line after the disk was full, an assertion in its writer aborts the
// process, and what matters comes back as a status.
//
// After a write without room nothing goes on by itself, nor may by Resume(): where nothing was
// written since the log began, RocksDB keeps the log that has failed, and an assertion in its
// writer aborts the process at the next record. The database is opened anew. Compactions do try
// again.
rocksdb::Options rocksdb_base_options();

// Whether a full disk, or a quota that is used up, is the reason.
bool lacks_room(const rocksdb::Status& status);

// Whether there is room to open the database in `folder` anew: its manifest is written whole, and
// of long logs tables are made. Sets it aside for a moment, as no figure tells of quotas.
bool has_room_to_open(const std::string& folder);

}  // namespace weft
