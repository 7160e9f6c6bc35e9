// Products of matrices in AMX tiles.
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include "packing.h"

namespace {

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

// Three products: sum[s] [O][C] += a^T b[s] over P places. a: [O][P], b: [P / 2][C][2], ``apart`` from each other.
void outer3(const uint16_t* a, int64_t O, const uint32_t* b, int64_t apart, int64_t C, int64_t P, float* sum) {
  for (int64_t o = 0; o < O; o += 16)
    for (int64_t c = 0; c < C; c += 16) {
      float* to = sum + o * C + c;
      _tile_loadd(0, to, C * 4);
      _tile_loadd(1, to + O * C, C * 4);
      _tile_loadd(2, to + 2 * O * C, C * 4);
      for (int64_t p = 0; p < P; p += STEP) {
        const uint32_t* at = b + p / 2 * C + c;
        _tile_loadd(3, a + o * P + p, P * 2);
        _tile_loadd(4, at, C * 4);
        _tile_loadd(5, at + apart, C * 4);
        _tile_loadd(6, at + 2 * apart, C * 4);
        _tile_dpbf16ps(0, 3, 4);
        _tile_dpbf16ps(1, 3, 5);
        _tile_dpbf16ps(2, 3, 6);
      }
      _tile_stored(0, to, C * 4);
      _tile_stored(1, to + O * C, C * 4);
      _tile_stored(2, to + 2 * O * C, C * 4);
    }
}

}  // namespace
