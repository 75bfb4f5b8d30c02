// Chunks in RocksDB, in three column families, by the 64 hex digits of their SHA-256:
//
// default: hash -> bytes. Small chunks, as synced writes to the log, which group well (and the
// large ones of older versions).
//
// pieces: hash + index -> 128 KiB of a large chunk. Each chunk is a table file of its own that is
// ingested, so its bytes are written once, no compaction ever touches them, and removing it frees
// its room.
//
// sizes: hash -> size, 8 bytes big-endian. Written after the pieces, this makes a large chunk be
// here, and answers for it without its bytes.
//
// Table files are written and synced beside each other, and those that are ready are ingested
// together, with one sync of the manifest and one of the log.
//
// Chunks leave kept_free() of the disk, so that removals always find the room that they need first.
// Where others have filled it, RocksDB refuses all writes after the first that failed; the next one
// opens the database anew, once there is room for that.
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <span>
#include <unordered_set>

#include "cluster/chunks/chunk_store.h"
#include "cluster/chunks/rocksdb_base.h"
#include "proto/base/disk.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr size_t kIngestFrom = 256 << 10;  // bytes
constexpr size_t kPieceBytes = 128 << 10;  // stays in a core's cache while checked and written
constexpr size_t kRemovedAtOnce = 64;      // chunks; ingesting goes on in between

enum Family : size_t { kSmall, kPieces, kSizes };
constexpr std::array kFamilies{"default", "pieces", "sizes"};

rocksdb::Options make_options(rocksdb::Env* disk) {
  rocksdb::Options options = rocksdb_base_options();
  if (disk != nullptr) options.env = disk;
  options.create_missing_column_families = true;
  options.max_open_files = 512;
  options.compression = rocksdb::kNoCompression;            // weights do not compress
  options.writable_file_max_buffer_size = kPieceBytes / 2;  // pieces are not copied into it
  rocksdb::BlockBasedTableOptions table;
  table.no_block_cache = true;  // each chunk is read once
  table.checksum = rocksdb::kXXH3;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

Status no_room() {
  return Status(Code::kResourceExhausted, "the disk of the chunk store is full")
      .with_rule("free some room; nothing acknowledged is lost and writes go on by themselves");
}

Status to_status(const rocksdb::Status& status) {
  if (status.ok()) return {};
  const std::string text = status.ToString();
  if (lacks_room(status)) return no_room();
  if (status.IsCorruption()) return {Code::kCorruption, "the chunk store is damaged: " + text};
  return {Code::kUnavailable, "the chunk store cannot be used: " + text};
}

rocksdb::Slice slice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

rocksdb::WriteOptions synced() {
  rocksdb::WriteOptions options;
  options.sync = true;
  return options;
}

std::string encode_size(size_t size) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(size >> (56 - 8 * i));
  return bytes;
}

int64_t decode_size(const rocksdb::Slice& bytes) {
  int64_t size = 0;
  for (size_t i = 0; i < bytes.size(); ++i) size = size << 8 | static_cast<uint8_t>(bytes[i]);
  return size;
}

// The database and its column families, which end together.
struct Database {
  ~Database() {
    if (!db) return;
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
    static_cast<void>(db->Close());
  }
  rocksdb::ColumnFamilyHandle* operator[](Family family) const { return handles[family]; }
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
};

class RocksdbChunkStore final : public ChunkStore {
 public:
  RocksdbChunkStore(std::string folder, rocksdb::Env* disk)
      : folder_(std::move(folder)), options_(make_options(disk)) {}

  Status open() {
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : kFamilies) families.emplace_back(name, options_);
    families[kPieces].options.disable_auto_compactions = true;
    auto opened = std::make_unique<Database>();
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status =
        rocksdb::DB::Open(options_, database(), families, &opened->handles, &db);
    opened->db.reset(db);
    if (!status.ok()) return to_status(status);
    base_ = std::move(opened);
    WEFT_RETURN_IF_ERROR(to_status(remove_halves()));
    failed_ = false;
    return {};
  }

  // Table files that were written but not ingested before a crash.
  void remove_leftovers() {
    std::error_code ignored;
    fs::remove_all(staging(), ignored);
    fs::create_directories(staging(), ignored);
  }

  Status put(const std::string& hash, std::string_view bytes) override {
    WEFT_RETURN_IF_ERROR(check_size(bytes));
    if (sha256_hex(bytes) != hash) {
      return Status::invalid("hash", hash, "must be the SHA-256 of the bytes");
    }
    return put_unchecked(hash, bytes);
  }

  Status put_unchecked(const std::string& hash, std::string_view bytes) override {
    WEFT_RETURN_IF_ERROR(check_size(bytes));
    if (!is_sha256_hex(hash)) {
      return Status::invalid("hash", hash.substr(0, 80), "must be 64 lower-case hex digits");
    }
    if (has(hash)) return {};
    WEFT_RETURN_IF_ERROR(room_for(bytes.size()));
    std::shared_lock lock(mutex_);
    if (!base_) return closed();
    const rocksdb::Status status = bytes.size() < kIngestFrom
                                       ? noted(base_->db->Put(synced(), hash, slice(bytes)))
                                       : ingest(hash, bytes);
    if (lacks_room(status)) full_ = true;
    return to_status(status);
  }

  Result<std::string> get(const std::string& hash) const override {
    std::string bytes;
    Sha256 hashed;
    {
      std::shared_lock lock(mutex_);
      if (!base_) return fail(closed());
      const rocksdb::Status status = read(hash, bytes, hashed);
      if (status.IsNotFound()) return fail(Code::kNotFound, "no chunk " + hash);
      if (!status.ok()) return fail(to_status(status));
    }
    if (to_hex(hashed.finish()) != hash) {
      return fail(Code::kCorruption, "chunk " + hash + " is damaged on this disk");
    }
    return bytes;
  }

  std::optional<int64_t> size(const std::string& hash) const override {
    std::shared_lock lock(mutex_);
    return base_ ? size_of(hash) : std::nullopt;
  }

  Status remove(const std::vector<std::string>& hashes) override {
    for (size_t first = 0; first < hashes.size(); first += kRemovedAtOnce) {
      const size_t count = std::min(kRemovedAtOnce, hashes.size() - first);
      WEFT_RETURN_IF_ERROR(remove(std::span(hashes).subspan(first, count)));
    }
    return {};
  }

  Status for_each(const std::function<void(const std::string&, int64_t)>& visit) const override {
    std::shared_lock lock(mutex_);
    if (!base_) return closed();
    for (const Family family : {kSizes, kSmall}) {
      const std::unique_ptr<rocksdb::Iterator> it(base_->db->NewIterator({}, (*base_)[family]));
      for (it->SeekToFirst(); it->Valid(); it->Next()) {
        visit(it->key().ToString(), family == kSizes ? decode_size(it->value())
                                                     : static_cast<int64_t>(it->value().size()));
      }
      if (!it->status().ok()) return to_status(it->status());
    }
    return {};
  }

  int64_t bytes() const override {
    std::shared_lock lock(mutex_);
    uint64_t sum = 0;
    if (!base_) return 0;
    for (const Family family : {kSmall, kPieces, kSizes}) {
      for (const char* what : {"rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"}) {
        uint64_t part = 0;
        base_->db->GetIntProperty((*base_)[family], what, &part);
        sum += part;
      }
    }
    return static_cast<int64_t>(sum);
  }

  bool full() const override { return full_ || failed_; }
  Status room() override { return full() ? room_for(kChunkBytesMax) : Status(); }

 private:
  // A table file that waits to be ingested.
  struct Staged {
    const std::string& hash;
    std::string path;
    size_t size = 0;
    bool done = false;  // this and the status: under tables_mutex_
    rocksdb::Status status;
  };

  std::string staging() const { return folder_ + "/staging"; }
  std::string database() const { return folder_ + "/db"; }
  static Status closed() {
    return {Code::kResourceExhausted,
            "the chunk store is closed after a full disk; free some room"};
  }
  static Status check_size(std::string_view bytes) {
    if (static_cast<int64_t>(bytes.size()) <= kChunkBytesMax) return {};
    return Status::invalid("chunk", std::to_string(bytes.size()),
                           "at most " + std::to_string(kChunkBytesMax) + " bytes");
  }

  std::optional<int64_t> size_of(const std::string& hash) const {
    rocksdb::PinnableSlice value;
    if (base_->db->Get({}, (*base_)[kSizes], hash, &value).ok()) return decode_size(value);
    value.Reset();
    if (!base_->db->Get({}, (*base_)[kSmall], hash, &value).ok()) return std::nullopt;
    return static_cast<int64_t>(value.size());
  }

  // Each piece is hashed as it comes, while it is in a near cache.
  rocksdb::Status read(const std::string& hash, std::string& bytes, Sha256& hashed) const {
    rocksdb::PinnableSlice size;
    rocksdb::Status status = base_->db->Get({}, (*base_)[kSizes], hash, &size);
    if (status.IsNotFound()) {
      status = base_->db->Get({}, (*base_)[kSmall], hash, &bytes);
      hashed.update(bytes);
      return status;
    }
    if (!status.ok()) return status;
    bytes.reserve(static_cast<size_t>(decode_size(size)));
    rocksdb::ReadOptions options;
    options.readahead_size = static_cast<size_t>(kChunkBytesMax);
    const std::string end = hash + '\xff';
    const rocksdb::Slice bound(end);
    options.iterate_upper_bound = &bound;  // and nothing of the next file is read
    const std::unique_ptr<rocksdb::Iterator> it(base_->db->NewIterator(options, (*base_)[kPieces]));
    for (it->Seek(hash); it->Valid(); it->Next()) {
      const std::string_view piece(it->value().data(), it->value().size());
      hashed.update(piece);
      bytes.append(piece);
    }
    return it->status();
  }

  rocksdb::Status write_table(const Staged& staged, std::string_view bytes) const {
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions(options_), options_, (*base_)[kPieces],
                                  /*invalidate_page_cache=*/false);
    rocksdb::Status status = writer.Open(staged.path);
    std::string key = staged.hash + '\0';
    for (; status.ok() && !bytes.empty(); ++key.back()) {
      status = writer.Put(key, slice(bytes.substr(0, kPieceBytes)));
      bytes.remove_prefix(std::min(kPieceBytes, bytes.size()));
    }
    return status.ok() ? writer.Finish() : status;
  }

  rocksdb::Status ingest(const std::string& hash, std::string_view bytes) {
    Staged staged{hash, staging() + "/" + std::to_string(next_file_++) + ".sst", bytes.size()};
    staged.status = write_table(staged, bytes);
    if (staged.status.ok()) {
      {
        const std::lock_guard lock(waiting_mutex_);
        waiting_.push_back(&staged);
      }
      const std::lock_guard turn(tables_mutex_);
      if (!staged.done) ingest_waiting();
    }
    std::error_code ignored;
    fs::remove(staged.path, ignored);
    return staged.status;
  }

  // Needs tables_mutex_.
  void ingest_waiting() {
    std::vector<Staged*> group;
    {
      const std::lock_guard lock(waiting_mutex_);
      group.swap(waiting_);
    }
    const rocksdb::Status status = ingest(group);
    for (Staged* staged : group) {
      staged->status = status;
      staged->done = true;
    }
  }

  rocksdb::Status ingest(const std::vector<Staged*>& group) {
    std::vector<std::string> paths;
    rocksdb::WriteBatch sizes;
    std::set<std::string_view> hashes;
    for (const Staged* staged : group) {
      if (!hashes.insert(staged->hash).second || size_of(staged->hash)) continue;
      paths.push_back(staged->path);
      sizes.Put((*base_)[kSizes], staged->hash, encode_size(staged->size));
    }
    if (paths.empty()) return {};
    rocksdb::IngestExternalFileOptions options;
    options.move_files = true;
    const rocksdb::Status status = base_->db->IngestExternalFile((*base_)[kPieces], paths, options);
    return noted(status.ok() ? base_->db->Write(synced(), &sizes) : status);
  }

  Status remove(std::span<const std::string> hashes) {
    WEFT_RETURN_IF_ERROR(open_anew());
    std::shared_lock lock(mutex_);
    if (!base_) return closed();
    rocksdb::WriteBatch batch;
    for (const std::string& hash : hashes) {
      batch.Delete((*base_)[kSmall], hash);
      batch.Delete((*base_)[kSizes], hash);
    }
    const std::lock_guard turn(tables_mutex_);
    const rocksdb::Status status = base_->db->Write(synced(), &batch);
    return to_status(noted(status.ok() ? remove_tables(hashes) : status));
  }

  // The table files that hold nothing but these chunks.
  rocksdb::Status remove_tables(std::span<const std::string> hashes) const {
    std::vector<std::string> ends;
    for (const std::string& hash : hashes) ends.push_back(hash + '\xff');
    std::vector<rocksdb::Slice> slices;
    for (size_t i = 0; i < hashes.size(); ++i) slices.insert(slices.end(), {hashes[i], ends[i]});
    std::vector<rocksdb::RangePtr> ranges;
    for (size_t i = 0; i < slices.size(); i += 2) ranges.emplace_back(&slices[i], &slices[i + 1]);
    rocksdb::Status status;
    for (const Family family : {kPieces, kSmall}) {
      if (!status.ok()) break;
      status = rocksdb::DeleteFilesInRanges(base_->db.get(), (*base_)[family], ranges.data(),
                                            ranges.size());
    }
    return status;
  }

  // Pieces whose size was not written before a crash, and sizes of chunks whose pieces are gone.
  rocksdb::Status remove_halves() const {
    std::unordered_set<std::string> pieces;
    std::vector<rocksdb::LiveFileMetaData> files;
    base_->db->GetLiveFilesMetaData(&files);
    for (const rocksdb::LiveFileMetaData& file : files) {
      if (file.column_family_name == kFamilies[kPieces]) {
        pieces.insert(file.smallestkey.substr(0, file.smallestkey.size() - 1));
      }
    }
    rocksdb::WriteBatch batch;
    const std::unique_ptr<rocksdb::Iterator> it(base_->db->NewIterator({}, (*base_)[kSizes]));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      if (pieces.erase(it->key().ToString()) == 0) batch.Delete((*base_)[kSizes], it->key());
    }
    rocksdb::Status status = it->status();
    if (status.ok() && batch.Count() > 0) status = base_->db->Write(synced(), &batch);
    if (!status.ok() || pieces.empty()) return status;
    return remove_tables(std::vector<std::string>(pieces.begin(), pieces.end()));
  }

  rocksdb::Status noted(rocksdb::Status status) {
    if (lacks_room(status)) failed_ = true;
    return status;
  }

  // Where the disk's room is not to be had, a write will tell why.
  Status room_for(int64_t bytes) {
    WEFT_RETURN_IF_ERROR(open_anew());
    std::error_code error;
    const fs::space_info space = fs::space(folder_, error);
    const int64_t needed = bytes + kept_free(static_cast<int64_t>(space.capacity));
    const bool known = !error && space.capacity > 0;
    const bool lacks = known && static_cast<int64_t>(space.available) < needed;
    full_ = lacks;
    return lacks ? no_room() : Status();
  }

  // After a write without room; see rocksdb_base_options().
  Status open_anew() {
    if (!failed_) return {};
    std::unique_lock lock(mutex_);
    if (!failed_) return {};
    if (!has_room_to_open(database())) return no_room();
    base_.reset();
    return open();
  }

  const std::string folder_;
  const rocksdb::Options options_;
  mutable std::shared_mutex mutex_;  // guards base_: exclusive to open it anew
  std::unique_ptr<Database> base_;
  std::atomic<bool> full_{false};
  std::atomic<bool> failed_{true};  // the database refuses writes until it is opened
  std::atomic<uint64_t> next_file_{0};

  // Held while table files come and go. Who gets it takes along what waits.
  std::mutex tables_mutex_;
  std::mutex waiting_mutex_;  // guards waiting_
  std::vector<Staged*> waiting_;
};

}  // namespace

Result<std::unique_ptr<ChunkStore>> open_chunk_store(const std::string& folder,
                                                     rocksdb::Env* disk) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return fail(
        Status(Code::kUnavailable, "cannot make the folder " + folder + ": " + error.message()));
  }
  auto store = std::make_unique<RocksdbChunkStore>(folder, disk);
  WEFT_RETURN_IF_ERROR(store->open());
  store->remove_leftovers();
  return store;
}

}  // namespace weft
