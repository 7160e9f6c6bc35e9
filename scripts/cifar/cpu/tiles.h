// Products of matrices in AMX tiles.
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include "tensors.h"

namespace {

constexpr int64_t STEP = 32;       // bfloat16 values of a tile's row
constexpr int64_t GATHERED = 128;  // rows whose products are added up at a time

bool tiles_are_allowed() {
  static bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return allowed;
}

// Tiles 0 to 3 hold 16 rows of 64 bytes. 4 and 5 take 16 rows of a matrix of ``depth`` columns, 32 at a time, 6 and 7
// what it is multiplied by.
struct Tiles {
  explicit Tiles(int64_t depth = STEP) {
    TORCH_CHECK(tiles_are_allowed(), "this processor has no AMX");
    TORCH_CHECK(depth == STEP / 2 || depth % STEP == 0, "16 channels, or a multiple of 32");
    uint16_t bytes = std::min(depth, STEP) * 2;
    auto height = (uint8_t)(bytes / 4);
    struct alignas(64) {
      uint8_t palette = 1, row = 0, none[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 0, 0, 64, 64};
      uint8_t height[16] = {16, 16, 16, 16, 16, 16, 0, 0};
    } config;
    config.bytes[4] = config.bytes[5] = bytes;
    config.height[6] = config.height[7] = height;
    asm volatile("" : : "r"(&config) : "memory");  // the compiler knows only that its first bytes are read
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
};

int64_t steps(int64_t n) { return (n + STEP - 1) / STEP; }

// out [BLOCK][width] = a [BLOCK][depth] * tiles.
void multiply(const uint16_t* a, int64_t depth, const uint16_t* tiles, int64_t width, float* out) {
  const uint16_t* below = a + 16 * depth;
  float* under = out + 16 * width;
  for (int64_t w = 0; w < width; w += 32) {
    bool two = w + 16 < width;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < steps(depth); k++) {
      _tile_loadd(4, a + k * STEP, depth * 2);
      _tile_loadd(5, below + k * STEP, depth * 2);
      _tile_loadd(6, tiles + (k * width + w) * STEP, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 5, 6);
      if (two) {
        _tile_loadd(7, tiles + (k * width + w + 16) * STEP, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, out + w, width * 4);
    _tile_stored(1, under + w, width * 4);
    if (two) {
      _tile_stored(2, out + w + 16, width * 4);
      _tile_stored(3, under + w + 16, width * 4);
    }
  }
}

// sum [A][B] += a^T b over R rows. a: [A][GATHERED], b: [R / 32][B / 16][16 pairs][16][2].
void outer(const uint16_t* a, int64_t A, const uint16_t* b, int64_t B, int64_t R, float* sum) {
  for (int64_t i = 0; i < A; i += 16)
    for (int64_t j = 0; j < B; j += 32) {
      bool two = j + 16 < B;
      float* to = sum + i * B + j;
      _tile_loadd(0, to, B * 4);
      if (two) _tile_loadd(1, to + 16, B * 4);
      for (int64_t r = 0; r < R; r += STEP) {
        _tile_loadd(2, a + i * GATHERED + r, GATHERED * 2);
        _tile_loadd(3, b + r * B + j * STEP, 64);
        _tile_dpbf16ps(0, 2, 3);
        if (two) {
          _tile_loadd(3, b + r * B + (j + 16) * STEP, 64);
          _tile_dpbf16ps(1, 2, 3);
        }
      }
      _tile_stored(0, to, B * 4);
      if (two) _tile_stored(1, to + 16, B * 4);
    }
}

__m512i pair(const uint16_t* at, int64_t stride) {  // 16 channels of two rows, side by side
  __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at));
  __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(at + stride)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

__m512i interleaving() {  // 0 16 1 17 …
  alignas(64) uint16_t order[32];
  for (int i = 0; i < 32; i++) order[i] = i % 2 * 16 + i / 2;
  return _mm512_load_si512(order);
}

void pack_rows(const uint16_t* x, int64_t stride, int64_t R, int64_t C, uint16_t* out) {
  for (int64_t r = 0; r < R; r += 2)
    for (int64_t c = 0; c < C; c += 16)
      _mm512_storeu_si512(out + ((r / STEP * C + c) * 16 + r % STEP / 2 * 16) * 2, pair(x + r * stride + c, stride));
}

// A matrix (depth, width) as the tiles that `multiply` takes: [depth / 32][width / 16][16 pairs][16][2].
vector<uint16_t> tiles_of(const Tensor& matrix) {
  Tensor m = matrix.contiguous();
  vector<uint16_t> out(steps(m.size(0)) * STEP * m.size(1), 0);
  pack_rows(data(m), m.size(1), m.size(0), m.size(1), out.data());
  return out;
}

void transpose(const uint16_t* x, int64_t C, uint16_t* out, int64_t stride) {  // [BLOCK][C] -> [C][stride]
  for (int64_t c = 0; c < C; c += 16) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = pair(x + 2 * i * C + c, C);
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
      a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
      a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
      a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    // a[4 q + j], lane l: rows 4 q .. 4 q + 3 of channel 4 l + j
    for (int j = 0; j < 4; j++) {
      __m512i p = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88), q = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
      __m512i s = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd), t = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
      _mm512_storeu_si512(out + (c + j) * stride, _mm512_shuffle_i32x4(p, q, 0x88));
      _mm512_storeu_si512(out + (c + 8 + j) * stride, _mm512_shuffle_i32x4(p, q, 0xdd));
      _mm512_storeu_si512(out + (c + 4 + j) * stride, _mm512_shuffle_i32x4(s, t, 0x88));
      _mm512_storeu_si512(out + (c + 12 + j) * stride, _mm512_shuffle_i32x4(s, t, 0xdd));
    }
  }
}

}  // namespace
