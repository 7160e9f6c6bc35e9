// Matrices in the order in which products read them: pairs of rows side by side, as bfloat16 instructions take them.
#pragma once
#include "tensors.h"

namespace {

constexpr int64_t STEP = 32;       // bfloat16 values of a tile's row
constexpr int64_t GATHERED = 128;  // rows whose products are added up at a time

int64_t steps(int64_t n) { return (n + STEP - 1) / STEP; }

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
