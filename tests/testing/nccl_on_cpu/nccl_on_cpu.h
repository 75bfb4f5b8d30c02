// What tests ask the played NCCL for.
#pragma once

#include <string>

namespace weft::nccl_on_cpu {

// From now on the ranks of new communicators are processes of this machine, which meet in new
// folders of this one, instead of threads of this process.
void meet_in(const std::string& folder);

int communicators();  // of the process, that were neither destroyed nor aborted
int open_groups();    // of this thread
// The n-th send of this thread from now on is refused; 1: the next.
void refuse_send(int n);

}  // namespace weft::nccl_on_cpu
