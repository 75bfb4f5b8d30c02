#include "worker/parallel/communicator.h"

namespace weft {

Pending Communicator::start_send_receive(const Tensor& send, int to, const Tensor& receive,
                                         int from, Site site) {
  return start([send, to, receive = receive, from, site](Communicator& c) mutable {
    c.send_receive(send, to, receive, from, site);
  });
}

}  // namespace weft
