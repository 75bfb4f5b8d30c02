// What tests ask the played NCCL for.
#pragma once

namespace weft::nccl_on_cpu {

int communicators();  // of the process, that were neither destroyed nor aborted
int open_groups();    // of this thread
// The n-th send of this thread from now on is refused; 1: the next.
void refuse_send(int n);

}  // namespace weft::nccl_on_cpu
