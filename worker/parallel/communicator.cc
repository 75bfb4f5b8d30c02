#include "worker/parallel/communicator.h"

namespace weft {

Pending Communicator::start_send_receive(const Tensor& send, int to, const Tensor& receive,
                                         int from) {
  return start([send, to, receive = receive, from](Communicator& c) mutable {
    c.send_receive(send, to, receive, from);
  });
}

}  // namespace weft
