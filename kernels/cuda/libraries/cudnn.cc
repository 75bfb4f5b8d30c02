#include "kernels/cuda/cudnn_library.h"
#include "kernels/cuda/load_library.h"

namespace weft::cuda {
namespace {

Result<Cudnn> load() {
  WEFT_ASSIGN_OR_RETURN(LoadedLibrary library,
                        LoadedLibrary::open({"libcudnn.so.9", "libcudnn.so"}));
  Cudnn table{};
  library.find(table.version, "cudnnGetVersion");
  library.find(table.create, "cudnnCreate");
  library.find(table.destroy, "cudnnDestroy");
  library.find(table.set_stream, "cudnnSetStream");
  library.find(table.descriptor_create, "cudnnBackendCreateDescriptor");
  library.find(table.descriptor_destroy, "cudnnBackendDestroyDescriptor");
  library.find(table.descriptor_set, "cudnnBackendSetAttribute");
  library.find(table.descriptor_get, "cudnnBackendGetAttribute");
  library.find(table.descriptor_finalize, "cudnnBackendFinalize");
  library.find(table.execute, "cudnnBackendExecute");
  WEFT_RETURN_IF_ERROR(library.complete());
  return table;
}

}  // namespace

Result<const Cudnn*> cudnn() {
  static const Result<Cudnn> loaded = load();
  if (!loaded) return fail(loaded.error());
  return &*loaded;
}

}  // namespace weft::cuda
