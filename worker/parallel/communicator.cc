#include "worker/parallel/communicator.h"

namespace weft {
namespace {

class Done final : public Pending {
 public:
  void wait() override {}
};

}  // namespace

std::unique_ptr<Pending> Communicator::start_send_receive(const Tensor& send, int to,
                                                          Tensor& receive, int from) {
  send_receive(send, to, receive, from);
  return std::make_unique<Done>();
}

}  // namespace weft
