// Large results in huge pages.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <vector>

#include "../tensors.h"

namespace f2d {

// New memory costs a page fault at its first store: 0.6 ms per MiB in pages of 4 KiB, 0.07 in pages of 2 MiB, while a
// kernel writes a MiB in 0.1 ms. The C library returns large results to the system when they are freed, so that each
// call meets new memory. Linux gives huge pages where it is asked to, and neither values nor sizes change.
inline void use_huge_pages(const Tensor& result) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kLeast = 2 << 20;
  const uintptr_t bytes = static_cast<uintptr_t>(result.numel()) * size_of(dtype_of(result));
  if (bytes < kLeast) return;
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t at = reinterpret_cast<uintptr_t>(data_of(result)), first = (at + page - 1) / page * page;
  madvise(reinterpret_cast<void*>(first), (at + bytes - first) / page * page, MADV_HUGEPAGE);  // may be refused
#endif
}

inline void use_huge_pages(const OptionalTensor& result) {
  if (result) use_huge_pages(*result);
}

inline void use_huge_pages(const std::vector<Tensor>& results) {
  for (const Tensor& result : results) use_huge_pages(result);
}

template <class First, class Second, class... Rest>
void use_huge_pages(const First& first, const Second& second, const Rest&... rest) {
  use_huge_pages(first);
  use_huge_pages(second, rest...);
}

}  // namespace f2d
