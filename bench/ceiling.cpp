// The memory ceiling of a CPU: reads and writes a given number of streams of a given size with almost no arithmetic.
// Every thread processes one contiguous part of each stream in tiles: it reads all read streams in step, then writes all
// write streams in step. Reads and writes do not depend on each other.
#include <cstdint>
#include <cstring>

#include <omp.h>
#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kTile = 2048;

struct Line {
  int64_t words[kLine / 8];
};

inline void mix(Line& sum, const char* from) {
  Line line;
  std::memcpy(&line, from, kLine);
  for (int i = 0; i < 8; ++i) sum.words[i] ^= line.words[i];
}

inline void store(char* to, const Line& line, bool past_the_cache) {
#if defined(__AVX512F__)
  if (past_the_cache) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(&line));
    return;
  }
#elif defined(__AVX__)
  if (past_the_cache) {
    for (int half = 0; half < 2; ++half) {
      const auto* part = reinterpret_cast<const __m256i*>(&line) + half;
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to) + half, _mm256_loadu_si256(part));
    }
    return;
  }
#endif
  std::memcpy(to, &line, kLine);
}

template <bool past_the_cache>
void sweep(const char* from, int64_t reads, int64_t read_lines, char* to, int64_t writes, int64_t write_lines) {
#pragma omp parallel
  {
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t longest = read_lines > write_lines ? read_lines : write_lines;
    const int64_t tiles = longest * kLine / kTile + 1;
    Line sum{};
    for (int64_t tile = tiles * thread / threads; tile < tiles * (thread + 1) / threads; ++tile) {
      const int64_t read_end = read_lines * (tile + 1) / tiles, write_end = write_lines * (tile + 1) / tiles;
      for (int64_t i = read_lines * tile / tiles; i < read_end; ++i)
        for (int64_t r = 0; r < reads; ++r) mix(sum, from + (r * read_lines + i) * kLine);
      const Line out{};
      for (int64_t i = write_lines * tile / tiles; i < write_end; ++i)
        for (int64_t w = 0; w < writes; ++w) store(to + (w * write_lines + i) * kLine, out, past_the_cache);
    }
    asm volatile("" ::"m"(sum) : "memory");
#if defined(__AVX__)
    _mm_sfence();
#endif
  }
}

}  // namespace

// Lengths in lines of 64 bytes; `from` holds `reads` streams one after another, `to` holds `writes`, both aligned.
extern "C" void f2d_bench_sweep(const void* from, int64_t reads, int64_t read_lines, void* to, int64_t writes,
                                int64_t write_lines, int past_the_cache) {
  auto* run = past_the_cache ? sweep<true> : sweep<false>;
  run(static_cast<const char*>(from), reads, read_lines, static_cast<char*>(to), writes, write_lines);
}
