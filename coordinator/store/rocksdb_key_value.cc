// RocksDB behind KeyValue. Write-ahead log on, every batch synced.
//
// After a full disk RocksDB turns read-only; the next write opens the database anew. Other write
// errors stay: after a failed fsync nothing is known about the pages, so only a restart, which
// reads the files back, may go on.
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <memory>
#include <mutex>
#include <shared_mutex>

#include "cluster/chunks/rocksdb_base.h"
#include "coordinator/store/key_value.h"

namespace weft {
namespace {

rocksdb::Options make_options() {
  rocksdb::Options options = rocksdb_base_options();
  options.max_open_files = 256;
  return options;
}

Status to_status(const rocksdb::Status& status) {
  if (status.ok()) return {};
  const std::string text = status.ToString();
  if (lacks_room(status)) {
    return {Code::kResourceExhausted, "the coordinator's disk is full, free some room: " + text};
  }
  if (status.IsCorruption()) {
    return {Code::kCorruption, "the job store is damaged, restore it from a copy: " + text};
  }
  if (status.IsIOError() || status.IsBusy() || status.IsAborted()) {
    return {Code::kUnavailable, "the job store cannot be used: " + text};
  }
  return {Code::kInternal, "job store: " + text};
}

class RocksdbKeyValue final : public KeyValue {
 public:
  explicit RocksdbKeyValue(std::string folder) : folder_(std::move(folder)) {}
  ~RocksdbKeyValue() override {
    if (db_) static_cast<void>(db_->Close());
  }

  Status open() {
    rocksdb::DB* db = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(make_options(), folder_, &db);
    db_.reset(db);
    return to_status(status);
  }

  Status write(const WriteSet& set) override {
    rocksdb::WriteBatch batch;
    for (const auto& [from, to] : set.removed_ranges) batch.DeleteRange(from, to);
    for (const auto& key : set.removes) batch.Delete(key);
    for (const auto& [key, value] : set.puts) batch.Put(key, value);
    std::lock_guard writer(write_mutex_);
    if (full_) WEFT_RETURN_IF_ERROR(recover());
    rocksdb::WriteOptions options;
    options.sync = true;
    std::shared_lock lock(db_mutex_);
    const rocksdb::Status status = db_->Write(options, &batch);
    full_ = lacks_room(status);
    if (full_) return no_room();
    return to_status(status);
  }

  Result<std::optional<std::string>> get(const std::string& key) const override {
    std::shared_lock lock(db_mutex_);
    if (!db_) return fail(closed());
    std::string value;
    const rocksdb::Status status = db_->Get({}, key, &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    if (!status.ok()) return fail(to_status(status));
    return std::optional<std::string>(std::move(value));
  }

  Status scan(const std::string& from, const std::string& to,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    std::shared_lock lock(db_mutex_);
    if (!db_) return closed();
    rocksdb::ReadOptions options;
    const rocksdb::Slice end(to);
    options.iterate_upper_bound = &end;
    std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
    for (it->Seek(from); it->Valid(); it->Next()) {
      if (!visit(it->key().ToStringView(), it->value().ToStringView())) break;
    }
    return to_status(it->status());
  }

  Result<std::optional<std::pair<std::string, std::string>>> last(
      const std::string& from, const std::string& to) const override {
    std::shared_lock lock(db_mutex_);
    if (!db_) return fail(closed());
    std::optional<std::pair<std::string, std::string>> found;
    rocksdb::ReadOptions options;
    const rocksdb::Slice begin(from);
    const rocksdb::Slice end(to);
    options.iterate_lower_bound = &begin;
    options.iterate_upper_bound = &end;
    std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(options));
    it->SeekToLast();
    if (it->Valid()) found.emplace(it->key().ToString(), it->value().ToString());
    if (!it->status().ok()) return fail(to_status(it->status()));
    return found;
  }

 private:
  static Status closed() {
    return {Code::kUnavailable, "the job store is closed after a full disk; free some room"};
  }

  // Under write_mutex_.
  Status recover() {
    if (!has_room_to_open(folder_)) return no_room();
    std::unique_lock lock(db_mutex_);
    if (db_) static_cast<void>(db_->Close());
    db_.reset();
    if (open().ok()) return {};
    rocksdb::DB* db = nullptr;  // reads go on meanwhile
    if (rocksdb::DB::OpenForReadOnly(make_options(), folder_, &db).ok()) db_.reset(db);
    return no_room();
  }

  static Status no_room() {
    return Status(Code::kResourceExhausted, "the coordinator's disk is full")
        .with_rule("free some room; nothing acknowledged is lost and writes go on by themselves");
  }

  const std::string folder_;
  std::mutex write_mutex_;              // orders writers; guards full_
  bool full_ = false;                   // no write until it is opened anew
  mutable std::shared_mutex db_mutex_;  // unique only while the database is opened anew
  std::unique_ptr<rocksdb::DB> db_;     // null: could not be opened again yet
};

}  // namespace

Result<std::unique_ptr<KeyValue>> open_rocksdb_key_value(const std::string& folder) {
  auto bytes = std::make_unique<RocksdbKeyValue>(folder);
  if (Status status = bytes->open(); !status.ok()) return fail(status.with_prefix(folder));
  return std::unique_ptr<KeyValue>(std::move(bytes));
}

}  // namespace weft
