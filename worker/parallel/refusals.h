// Memory that the system refuses, as a failure that is told. Thread safety: any thread.
#pragma once

#include <new>
#include <system_error>

#include "proto/base/status.h"

namespace weft {

// Does `work`. Where it is refused memory, or the stack of another thread, throws StatusError with
// kResourceExhausted; what else it throws passes.
template <typename Work>
void tell_refusals(const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    throw StatusError(Status(Code::kResourceExhausted, "the system refuses it more memory"));
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again) throw;
    throw StatusError(
        Status(Code::kResourceExhausted, "the system refuses it the stack of another thread"));
  }
}

}  // namespace weft
