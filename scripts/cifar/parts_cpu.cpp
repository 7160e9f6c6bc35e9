// The parts of the networks in bfloat16, for training on a processor with AVX-512 and AMX.
//
// Training is bound by memory here: a tensor of a large stage does not fit in any cache that a core has to itself. So
// normalisation and ReLU are computed where the next convolution reads, and again where the gradients need them; sums
// over a tensor are taken where it is written.
//
// Tensors are channels last: rows of C channels, C a multiple of 16, the number of rows a multiple of 32.
#include <immintrin.h>
#include <sys/syscall.h>
#include <torch/extension.h>
#include <unistd.h>

#include <tuple>
#include <vector>

namespace {

using at::Tensor;
using std::vector;
constexpr int64_t LANES = 16;
constexpr int64_t BLOCK = 32;  // rows that are worked on at a time
constexpr int64_t STEP = 32;    // bfloat16 values of a tile's row

// ---- bfloat16 ----

__m512 load(const uint16_t* at) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16));
}

__m512 store(uint16_t* at, __m512 value) {  // returns the value as it is rounded
  __m256i rounded = (__m256i)_mm512_cvtneps_pbh(value);
  _mm256_storeu_si256((__m256i*)at, rounded);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
}

__m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }

__mmask16 positive(__m512 x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ); }

// ---- tensors ----

uint16_t* data(const Tensor& x) { return (uint16_t*)x.data_ptr(); }

void check(const Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kBFloat16 && x.is_contiguous(at::MemoryFormat::ChannelsLast), "channels last");
  TORCH_CHECK(x.size(1) % LANES == 0 && x.numel() / x.size(1) % STEP == 0, "whole vectors and tiles");
}

int64_t rows(const Tensor& x) { return x.numel() / x.size(1); }

Tensor like(const Tensor& x, int64_t channels) {
  return at::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
}

Tensor doubles(int64_t channels) { return at::zeros({2, channels}, at::kDouble); }

// Two sums for each channel, added up over a block in registers.
struct Sums {
  double *first, *second;
  explicit Sums(Tensor& sums) : first(sums.data_ptr<double>()), second(first + sums.size(1)) {}
  static void add(double* to, __m512 values) {
    _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), _mm512_cvtps_pd(_mm512_castps512_ps256(values))));
    __m256 high = _mm512_extractf32x8_ps(values, 1);
    _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), _mm512_cvtps_pd(high)));
  }
  void add(int64_t channel, __m512 a, __m512 b) const {
    add(first + channel, a);
    add(second + channel, b);
  }
};

// What a normalisation does to a tensor: x * scale + shift. ``middle`` and ``inverse`` are mean and 1 / deviation.
struct Line {
  const float *scale, *shift, *middle, *inverse;
  explicit Line(const Tensor& line)
      : scale(line.data_ptr<float>()), shift(scale + line.size(1)), middle(shift + line.size(1)), inverse(middle + line.size(1)) {}
  __m512 at(int64_t c, __m512 x) const { return _mm512_fmadd_ps(x, _mm512_loadu_ps(scale + c), _mm512_loadu_ps(shift + c)); }
};

// f(number of vectors, first channel) for groups of channels. The number is known to the compiler, which then keeps
// a group's values in registers; whole cache lines are read in their order.
template <class F>
void groups(int64_t C, F&& f) {
  int64_t c = 0;
  for (; C - c >= 4 * LANES; c += 4 * LANES) f(std::integral_constant<int, 4>(), c);
  for (; C - c >= 2 * LANES; c += 2 * LANES) f(std::integral_constant<int, 2>(), c);
  for (; C - c >= LANES; c += LANES) f(std::integral_constant<int, 1>(), c);
}

// f(number of vectors, first row, behind the last, first channel) for pieces that stay in the first cache.
template <class F>
void pieces(int64_t M, int64_t C, F&& f) {
  for (int64_t start = 0; start < M; start += BLOCK)
    groups(C, [&](auto n, int64_t c) { f(n, start, std::min(M, start + BLOCK), c); });
}

// N vectors of constants.
template <int N>
struct Vectors {
  __m512 v[N];
  Vectors() {
    for (auto& each : v) each = _mm512_setzero_ps();
  }
  explicit Vectors(const float* from) {
    for (int i = 0; i < N; i++) v[i] = _mm512_loadu_ps(from + i * LANES);
  }
  __m512& operator[](int i) { return v[i]; }
};

void ahead(const uint16_t* at) { _mm_prefetch((const char*)at, _MM_HINT_T1); }

// ---- tiles ----

bool tiles_are_allowed() {
  static bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return allowed;
}

struct Tiles {
  Tiles() {
    TORCH_CHECK(tiles_are_allowed(), "this processor has no AMX");
    struct alignas(64) {
      uint8_t palette = 1, row = 0, none[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t height[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
};

int64_t steps(int64_t n) { return (n + STEP - 1) / STEP; }

// out [R][width] = a [R][depth, rows ``stride`` apart] * tiles. R is a multiple of 32.
void multiply(const uint16_t* a, int64_t stride, int64_t R, int64_t depth, const uint16_t* tiles, int64_t width, float* out) {
  for (int64_t r = 0; r < R; r += 32)
    for (int64_t w = 0; w < width; w += 16) {
      _tile_zero(0);
      _tile_zero(1);
      for (int64_t k = 0; k < steps(depth); k++) {
        _tile_loadd(2, a + r * stride + k * STEP, stride * 2);
        _tile_loadd(3, a + (r + 16) * stride + k * STEP, stride * 2);
        _tile_loadd(4, tiles + (k * width + w) * STEP, 64);
        _tile_dpbf16ps(0, 2, 4);
        _tile_dpbf16ps(1, 3, 4);
      }
      _tile_stored(0, out + r * width + w, width * 4);
      _tile_stored(1, out + (r + 16) * width + w, width * 4);
    }
}

// sum [A][B] += a^T b. a: [A][BLOCK] transposed, b: [R / 32][B / 16][16 pairs][16][2].
void outer(const uint16_t* a, int64_t A, const uint16_t* b, int64_t B, int64_t R, float* sum) {
  for (int64_t i = 0; i < A; i += 16)
    for (int64_t j = 0; j < B; j += 16) {
      _tile_loadd(0, sum + i * B + j, B * 4);
      for (int64_t r = 0; r < R; r += STEP) {
        _tile_loadd(2, a + i * BLOCK + r, BLOCK * 2);
        _tile_loadd(4, b + (r / STEP * B + j) * STEP, 64);
        _tile_dpbf16ps(0, 2, 4);
      }
      _tile_stored(0, sum + i * B + j, B * 4);
    }
}

__m512i pair(const uint16_t* at, int64_t stride) {  // 16 channels of two rows, side by side
  __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at));
  __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(at + stride)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
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

void transpose(const uint16_t* x, int64_t stride, int64_t R, int64_t C, uint16_t* out) {  // [C][BLOCK]
  for (int64_t r = 0; r < R; r += STEP)
    for (int64_t c = 0; c < C; c += 16) {
      __m512i a[16], b[16];
      for (int i = 0; i < 16; i++) a[i] = pair(x + (r + 2 * i) * stride + c, stride);
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
        _mm512_storeu_si512(out + (c + j) * BLOCK + r, _mm512_shuffle_i32x4(p, q, 0x88));
        _mm512_storeu_si512(out + (c + 8 + j) * BLOCK + r, _mm512_shuffle_i32x4(p, q, 0xdd));
        _mm512_storeu_si512(out + (c + 4 + j) * BLOCK + r, _mm512_shuffle_i32x4(s, t, 0x88));
        _mm512_storeu_si512(out + (c + 12 + j) * BLOCK + r, _mm512_shuffle_i32x4(s, t, 0xdd));
      }
    }
}

// Rows that tiles can read: themselves, or copied with zeros behind them where the depth is no multiple of 32.
struct Rows {
  vector<uint16_t> copy;
  int64_t C, stride;
  explicit Rows(int64_t channels) : copy(channels % STEP ? BLOCK * steps(channels) * STEP : 0), C(channels), stride(steps(channels) * STEP) {}
  const uint16_t* at(const uint16_t* x, int64_t R) {
    if (copy.empty()) return x;
    for (int64_t r = 0; r < R; r++)
      for (int64_t c = 0; c < C; c += 16) _mm256_storeu_si256((__m256i*)&copy[r * stride + c], _mm256_loadu_si256((const __m256i*)(x + r * C + c)));
    return copy.data();
  }
};

// ---- normalisation and ReLU ----

// The sums of x and of its squares.
Tensor sums_of(const Tensor& x) {
  check(x);
  int64_t C = x.size(1);
  Tensor out = doubles(C);
  Sums sums(out);
  const uint16_t* from = data(x);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> s, q;
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C);
        __m512 v = load(from + at);
        s[i] = _mm512_add_ps(s[i], v);
        q[i] = _mm512_fmadd_ps(v, v, q[i]);
      }
    for (int i = 0; i < n; i++) sums.add(c + i * LANES, s[i], q[i]);
  });
  return out;
}

// (4, C): scale, shift, mean, 1 / deviation, from the sums over ``count`` rows. Moves the running statistics.
Tensor line_of(const Tensor& sums, int64_t count, const Tensor& gamma, const Tensor& beta, const Tensor& mean,
               const Tensor& variance, double momentum, double epsilon) {
  int64_t C = gamma.numel();
  Tensor line = at::empty({4, C}, gamma.options());
  float* to = line.data_ptr<float>();
  const double* s = sums.data_ptr<double>();
  for (int64_t c = 0; c < C; c++) {
    double m = s[c] / count, v = std::max(0.0, s[C + c] / count - m * m), inverse = 1 / std::sqrt(v + epsilon);
    to[c] = gamma.data_ptr<float>()[c] * inverse;
    to[C + c] = beta.data_ptr<float>()[c] - m * to[c];
    to[2 * C + c] = m;
    to[3 * C + c] = inverse;
    float &running_mean = mean.data_ptr<float>()[c], &running_variance = variance.data_ptr<float>()[c];
    running_mean += momentum * (m - running_mean);
    running_variance += momentum * (v * count / (count - 1) - running_variance);
  }
  return line;
}

Tensor norm_relu(const Tensor& x, const Tensor& line) {
  check(x);
  int64_t C = x.size(1);
  Tensor y = at::empty_like(x);
  Line norm(line);
  const uint16_t* from = data(x);
  uint16_t* to = data(y);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> a(norm.scale + c), b(norm.shift + c);
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C);
        store(to + at, relu(_mm512_fmadd_ps(load(from + at), a[i], b[i])));
      }
  });
  return y;
}

// What `apply` needs, (2, C): dx = scale * gradient where positive + slope * x + base. Gradients of gamma and beta, too.
std::tuple<Tensor, Tensor, Tensor> finish(const Tensor& sums, int64_t count, const Tensor& line) {
  int64_t C = line.size(1);
  Tensor slope = at::empty({2, C}, line.options()), dgamma = at::empty({C}, line.options()), dbeta = at::empty({C}, line.options());
  Line norm(line);
  const double* s = sums.data_ptr<double>();
  float* to = slope.data_ptr<float>();
  for (int64_t c = 0; c < C; c++) {
    dbeta.data_ptr<float>()[c] = s[c];
    dgamma.data_ptr<float>()[c] = s[C + c] * norm.inverse[c];
    to[c] = -norm.scale[c] * norm.inverse[c] * norm.inverse[c] * s[C + c] / count;
    to[C + c] = -norm.scale[c] * s[c] / count - to[c] * norm.middle[c];
  }
  return {slope, dgamma, dbeta};
}

// The sums of the gradient behind the ReLU, and of it times (x - mean).
Tensor gradient_sums(const Tensor& d, const Tensor& x, const Tensor& line) {
  check(d);
  int64_t C = x.size(1);
  Tensor out = doubles(C);
  Sums sums(out);
  Line norm(line);
  const uint16_t *from = data(x), *above = data(d);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> a(norm.scale + c), b(norm.shift + c), m(norm.middle + c), s, q;
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C), ahead(above + at + BLOCK * C);
        __m512 v = load(from + at);
        __m512 g = _mm512_maskz_mov_ps(positive(_mm512_fmadd_ps(v, a[i], b[i])), load(above + at));
        s[i] = _mm512_add_ps(s[i], g);
        q[i] = _mm512_fmadd_ps(g, _mm512_sub_ps(v, m[i]), q[i]);
      }
    for (int i = 0; i < n; i++) sums.add(c + i * LANES, s[i], q[i]);
  });
  return out;
}

Tensor norm_relu_apply(const Tensor& d, const Tensor& x, const Tensor& line, const Tensor& slope) {
  int64_t C = x.size(1);
  Tensor dx = at::empty_like(x);
  Line norm(line);
  const float* slopes = slope.data_ptr<float>();
  const uint16_t *from = data(x), *above = data(d);
  uint16_t* to = data(dx);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> a(norm.scale + c), b(norm.shift + c), l(slopes + c), z(slopes + C + c);
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C), ahead(above + at + BLOCK * C);
        __m512 v = load(from + at), result = _mm512_fmadd_ps(v, l[i], z[i]);
        store(to + at, _mm512_mask3_fmadd_ps(load(above + at), a[i], result, positive(_mm512_fmadd_ps(v, a[i], b[i]))));
      }
  });
  return dx;
}

// ---- 1x1 convolutions behind normalisation and ReLU; kernels are (out, in), bfloat16 ----

// The convolution of relu(norm(x)), with ``more`` added; and `sums_of` the result.
std::tuple<Tensor, Tensor> conv_forward(const Tensor& x, const Tensor& line, const Tensor& kernel, const std::optional<Tensor>& more) {
  check(x);
  int64_t C = x.size(1), O = kernel.size(0), M = rows(x), wide = steps(C) * STEP;
  Tensor out = like(x, O), sum = doubles(O);
  Sums sums(sum);
  Line norm(line);
  const uint16_t *from = data(x), *beside = more ? data(*more) : nullptr;
  uint16_t* to = data(out);
  auto tiles = tiles_of(kernel.t());
  vector<uint16_t> in(BLOCK * wide, 0);
  vector<float> product(BLOCK * O);
  Tiles configured;
  for (int64_t start = 0; start < M; start += BLOCK) {
    int64_t R = std::min(BLOCK, M - start);
    groups(C, [&](auto n, int64_t c) {
      Vectors<n> a(norm.scale + c), b(norm.shift + c);
      for (int64_t r = 0; r < R; r++)
        for (int i = 0; i < n; i++) {
          const uint16_t* at = from + (start + r) * C + c + i * LANES;
          if (i % 2 == 0) ahead(at + BLOCK * C);
          store(&in[r * wide + c + i * LANES], relu(_mm512_fmadd_ps(load(at), a[i], b[i])));
        }
    });
    multiply(in.data(), wide, R, C, tiles.data(), O, product.data());
    groups(O, [&](auto n, int64_t o) {
      Vectors<n> s, q;
      for (int64_t r = 0; r < R; r++)
        for (int i = 0; i < n; i++) {
          int64_t at = (start + r) * O + o + i * LANES;
          __m512 v = _mm512_loadu_ps(&product[r * O + o + i * LANES]);
          if (beside) {
            if (i % 2 == 0) ahead(beside + at + BLOCK * O);
            v = _mm512_add_ps(v, load(beside + at));
          }
          v = store(to + at, v);
          s[i] = _mm512_add_ps(s[i], v);
          q[i] = _mm512_fmadd_ps(v, v, q[i]);
        }
      for (int i = 0; i < n; i++) sums.add(o + i * LANES, s[i], q[i]);
    });
  }
  return {out, sum};
}

// The kernel's gradient, `gradient_sums` of x's normalisation and, if ``keep``, the gradient before its ReLU.
std::tuple<Tensor, Tensor, Tensor> conv_backward(const Tensor& d, const Tensor& x, const Tensor& line, const Tensor& kernel, bool keep) {
  check(d);
  check(x);
  int64_t C = x.size(1), O = kernel.size(0), M = rows(x);
  Tensor back = keep ? at::empty_like(x) : Tensor(), sum = doubles(C);
  Sums sums(sum);
  Line norm(line);
  const uint16_t *from = data(x), *above = data(d);
  uint16_t* to = keep ? data(back) : nullptr;
  auto tiles = tiles_of(kernel);
  bool narrow = C <= O;  // the narrower of the two matrices is transposed
  Tensor own = at::zeros(narrow ? std::vector<int64_t>{C, O} : std::vector<int64_t>{O, C}, line.options());
  vector<uint16_t> in(BLOCK * C), turned(std::min(C, O) * BLOCK), pairs(std::max(C, O) * BLOCK);
  vector<float> product(BLOCK * C);
  Rows readable(O);
  Tiles configured;
  for (int64_t start = 0; start < M; start += BLOCK) {
    int64_t R = std::min(BLOCK, M - start);
    const uint16_t* here = above + start * O;
    multiply(readable.at(here, R), readable.stride, R, O, tiles.data(), C, product.data());
    groups(C, [&](auto n, int64_t c) {
      Vectors<n> a(norm.scale + c), b(norm.shift + c), m(norm.middle + c), s, q;
      for (int64_t r = 0; r < R; r++)
        for (int i = 0; i < n; i++) {
          int64_t within = r * C + c + i * LANES, at = start * C + within;
          if (i % 2 == 0) ahead(from + at + BLOCK * C);
          __m512 v = load(from + at), line = _mm512_fmadd_ps(v, a[i], b[i]), g = _mm512_loadu_ps(&product[within]);
          if (keep) store(to + at, g);
          g = _mm512_maskz_mov_ps(positive(line), g);
          store(&in[within], relu(line));
          s[i] = _mm512_add_ps(s[i], g);
          q[i] = _mm512_fmadd_ps(g, _mm512_sub_ps(v, m[i]), q[i]);
        }
      for (int i = 0; i < n; i++) sums.add(c + i * LANES, s[i], q[i]);
    });
    if (narrow) {
      transpose(in.data(), C, R, C, turned.data());
      pack_rows(here, O, R, O, pairs.data());
      outer(turned.data(), C, pairs.data(), O, R, own.data_ptr<float>());
    } else {
      transpose(here, O, R, O, turned.data());
      pack_rows(in.data(), C, R, C, pairs.data());
      outer(turned.data(), O, pairs.data(), C, R, own.data_ptr<float>());
    }
  }
  return {narrow ? own.t() : own, sum, back};
}

// The gradient of x, computed from that of the convolution again, with ``more`` added.
Tensor conv_apply(const Tensor& d, const Tensor& x, const Tensor& line, const Tensor& kernel, const Tensor& slope, const std::optional<Tensor>& more) {
  int64_t C = x.size(1), O = kernel.size(0), M = rows(x);
  Tensor dx = at::empty_like(x);
  Line norm(line);
  const float* slopes = slope.data_ptr<float>();
  const uint16_t *from = data(x), *above = data(d), *beside = more ? data(*more) : nullptr;
  uint16_t* to = data(dx);
  auto tiles = tiles_of(kernel);
  vector<float> product(BLOCK * C);
  Rows readable(O);
  Tiles configured;
  for (int64_t start = 0; start < M; start += BLOCK) {
    int64_t R = std::min(BLOCK, M - start);
    multiply(readable.at(above + start * O, R), readable.stride, R, O, tiles.data(), C, product.data());
    groups(C, [&](auto n, int64_t c) {
      Vectors<n> a(norm.scale + c), b(norm.shift + c), l(slopes + c), z(slopes + C + c);
      for (int64_t r = 0; r < R; r++)
        for (int i = 0; i < n; i++) {
          int64_t within = r * C + c + i * LANES, at = start * C + within;
          if (i % 2 == 0) ahead(from + at + BLOCK * C);
          __m512 v = load(from + at), result = _mm512_fmadd_ps(v, l[i], z[i]);
          if (beside) {
            if (i % 2 == 0) ahead(beside + at + BLOCK * C);
            result = _mm512_add_ps(result, load(beside + at));
          }
          __mmask16 on = positive(_mm512_fmadd_ps(v, a[i], b[i]));
          store(to + at, _mm512_mask3_fmadd_ps(_mm512_loadu_ps(&product[within]), a[i], result, on));
        }
    });
  }
  return dx;
}

// ---- masks ----

__m512 exp_negative(__m512 x) {  // e^-x for |x| <= 80, to 1e-4 of the value: the result is rounded to bfloat16
  __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
  __m512 whole = _mm512_roundscale_ps(t, 0), part = _mm512_sub_ps(t, whole), p = _mm512_set1_ps(0.0096181f);
  for (float next : {0.0555041f, 0.2402265f, 0.6931472f, 1.0f}) p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(next));
  return _mm512_scalef_ps(p, whole);
}

__m512 sigmoid(__m512 x) {
  __m512 one = _mm512_set1_ps(1.0f);
  x = _mm512_max_ps(_mm512_set1_ps(-80.0f), _mm512_min_ps(_mm512_set1_ps(80.0f), x));
  return _mm512_div_ps(one, _mm512_add_ps(one, exp_negative(x)));
}

// Also the mean of how far the logits are beyond +-limit: squared up to 1, from there on straight.
std::tuple<Tensor, double> gate_forward(const Tensor& trunk, const Tensor& mask, double limit) {
  check(trunk);
  check(mask);
  Tensor out = at::empty_like(trunk);
  const uint16_t *t = data(trunk), *m = data(mask);
  uint16_t* to = data(out);
  __m512 bound = _mm512_set1_ps((float)limit), one = _mm512_set1_ps(1.0f);
  double total = 0;
  for (int64_t start = 0; start < out.numel(); start += 4096) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = start; i < std::min(out.numel(), start + 4096); i += LANES) {
      __m512 v = load(t + i), x = load(m + i), e = relu(_mm512_sub_ps(_mm512_abs_ps(x), bound));
      store(to + i, _mm512_fmadd_ps(v, sigmoid(x), v));
      __m512 straight = _mm512_sub_ps(_mm512_add_ps(e, e), one);
      sum = _mm512_add_ps(sum, _mm512_mask_mul_ps(straight, _mm512_cmp_ps_mask(e, one, _CMP_LT_OQ), e, e));
    }
    total += _mm512_reduce_add_ps(sum);
  }
  return {out, total / out.numel()};
}

// Gradients of trunk and mask; ``factor`` is the gradient of the mean.
std::tuple<Tensor, Tensor> gate_backward(const Tensor& d, const Tensor& trunk, const Tensor& mask, double limit, double factor) {
  check(d);
  Tensor dtrunk = at::empty_like(trunk), dmask = at::empty_like(mask);
  const uint16_t *above = data(d), *t = data(trunk), *m = data(mask);
  uint16_t *to_trunk = data(dtrunk), *to_mask = data(dmask);
  __m512 bound = _mm512_set1_ps((float)limit), each = _mm512_set1_ps((float)(2 * factor / d.numel()));
  __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
  for (int64_t i = 0; i < d.numel(); i += LANES) {
    __m512 g = load(above + i), x = load(m + i), s = sigmoid(x);
    __m512 excess = _mm512_min_ps(one, relu(_mm512_sub_ps(_mm512_abs_ps(x), bound)));
    __m512 penalty = _mm512_or_ps(_mm512_mul_ps(excess, each), _mm512_and_ps(x, sign));
    store(to_trunk + i, _mm512_fmadd_ps(g, s, g));
    store(to_mask + i, _mm512_fmadd_ps(_mm512_mul_ps(g, load(t + i)), _mm512_fnmadd_ps(s, s, s), penalty));
  }
  return {dtrunk, dmask};
}

// ---- maximum pooling, 3x3 with a stride of 2, which pads below and on the right alone ----

// The largest of each window, and which of the nine it is.
std::tuple<Tensor, Tensor> pool_forward(const Tensor& x) {
  check(x);
  int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), h = H / 2, w = W / 2;
  Tensor out = at::empty({N, C, h, w}, x.options(), at::MemoryFormat::ChannelsLast);
  Tensor which = at::empty({N, C, h, w}, x.options().dtype(at::kByte), at::MemoryFormat::ChannelsLast);
  const uint16_t* from = data(x);
  uint16_t* to = data(out);
  auto* index = which.data_ptr<uint8_t>();
  for (int64_t n = 0; n < N; n++)
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t c = 0; c < C; c += LANES) {
          __m512 best = _mm512_set1_ps(-INFINITY);
          __m512i chosen = _mm512_setzero_si512();
          for (int64_t k = 0; k < 9; k++) {
            int64_t y = 2 * i + k / 3, z = 2 * j + k % 3;
            if (y >= H || z >= W) continue;
            __m512 v = load(from + ((n * H + y) * W + z) * C + c);
            __mmask16 more = _mm512_cmp_ps_mask(v, best, _CMP_GT_OQ);
            best = _mm512_mask_mov_ps(best, more, v);
            chosen = _mm512_mask_mov_epi32(chosen, more, _mm512_set1_epi32(k));
          }
          int64_t at = ((n * h + i) * w + j) * C + c;
          store(to + at, best);
          _mm_storeu_si128((__m128i*)(index + at), _mm512_cvtepi32_epi8(chosen));
        }
  return {out, which};
}

Tensor pool_backward(const Tensor& d, const Tensor& which) {
  check(d);
  int64_t N = d.size(0), C = d.size(1), h = d.size(2), w = d.size(3), H = 2 * h, W = 2 * w;
  Tensor dx = at::empty({N, C, H, W}, d.options(), at::MemoryFormat::ChannelsLast);
  const uint16_t* above = data(d);
  const auto* index = which.data_ptr<uint8_t>();
  uint16_t* to = data(dx);
  for (int64_t n = 0; n < N; n++)
    for (int64_t y = 0; y < H; y++)
      for (int64_t z = 0; z < W; z++)
        for (int64_t c = 0; c < C; c += LANES) {
          __m512 sum = _mm512_setzero_ps();
          for (int64_t i = std::max<int64_t>(0, (y - 1) / 2); i <= y / 2; i++)  // windows that hold this place
            for (int64_t j = std::max<int64_t>(0, (z - 1) / 2); j <= z / 2; j++) {
              int64_t at = ((n * h + i) * w + j) * C + c, k = (y - 2 * i) * 3 + z - 2 * j;
              __m512i chosen = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(index + at)));
              sum = _mm512_mask_add_ps(sum, _mm512_cmpeq_epi32_mask(chosen, _mm512_set1_epi32(k)), sum, load(above + at));
            }
          store(to + ((n * H + y) * W + z) * C + c, sum);
        }
  return dx;
}

// ---- 3x3 convolutions ----

// The gradient of a 3x3 kernel with a stride of 1, (out, in, 3, 3).
Tensor conv3x3_kernel(const Tensor& d, const Tensor& x) {
  check(d);
  check(x);
  int64_t N = x.size(0), C = x.size(1), O = d.size(1), H = x.size(2), W = x.size(3), P = H * W;
  TORCH_CHECK(W % 2 == 0 && P % STEP == 0, "whole tiles in each picture");
  Tensor own = at::zeros({3, 3, O, C}, at::kFloat);
  float* sum = own.data_ptr<float>();
  const uint16_t *from = data(x), *above = data(d);
  // Pairs of places, shifted by -1, 0 and 1 columns, with an empty row above and below: [3][(H + 2) W / 2][C][2].
  vector<uint32_t> pairs(3 * (H + 2) * W / 2 * C, 0);
  vector<uint16_t> turned(O * P), block(O * BLOCK);
  int64_t shifted = (H + 2) * W / 2 * C;
  Tiles configured;
  for (int64_t n = 0; n < N; n++) {
    for (int64_t p = 0; p < P; p += BLOCK) {
      transpose(above + (n * P + p) * O, O, BLOCK, O, block.data());
      for (int64_t o = 0; o < O; o++) std::copy_n(&block[o * BLOCK], BLOCK, &turned[o * P + p]);
    }
    for (int64_t y = 0; y < H; y++) {
      const uint16_t* row = from + (n * P + y * W) * C;
      for (int64_t s = 0; s < 3; s++)
        for (int64_t p = 0; p < W / 2; p++)
          for (int64_t c = 0; c < C; c += LANES) {
            int64_t left = 2 * p + s - 1, right = left + 1;
            __m512i low = left < 0 ? _mm512_setzero_si512() : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + left * C + c)));
            __m512i high = right >= W ? _mm512_setzero_si512() : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + right * C + c)));
            _mm512_storeu_si512(&pairs[s * shifted + ((y + 1) * W / 2 + p) * C + c], _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
          }
    }
    for (int64_t o = 0; o < O; o += 16)
      for (int64_t c = 0; c < C; c += 16)
        for (int64_t v = 0; v < 3; v++) {
          float* to = sum + v * 3 * O * C + o * C + c;
          _tile_loadd(0, to, C * 4);
          _tile_loadd(1, to + O * C, C * 4);
          _tile_loadd(2, to + 2 * O * C, C * 4);
          for (int64_t p = 0; p < P; p += STEP) {
            const uint32_t* at = &pairs[(v * W / 2 + p / 2) * C + c];
            _tile_loadd(3, &turned[o * P + p], P * 2);
            _tile_loadd(4, at, C * 4);
            _tile_loadd(5, at + shifted, C * 4);
            _tile_loadd(6, at + 2 * shifted, C * 4);
            _tile_dpbf16ps(0, 3, 4);
            _tile_dpbf16ps(1, 3, 5);
            _tile_dpbf16ps(2, 3, 6);
          }
          _tile_stored(0, to, C * 4);
          _tile_stored(1, to + O * C, C * 4);
          _tile_stored(2, to + 2 * O * C, C * 4);
        }
  }
  return own.permute({2, 3, 0, 1});
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("sums_of", &sums_of);
  module.def("line_of", &line_of);
  module.def("norm_relu", &norm_relu);
  module.def("finish", &finish);
  module.def("gradient_sums", &gradient_sums);
  module.def("norm_relu_apply", &norm_relu_apply);
  module.def("conv_forward", &conv_forward);
  module.def("conv_backward", &conv_backward);
  module.def("conv_apply", &conv_apply);
  module.def("gate_forward", &gate_forward);
  module.def("gate_backward", &gate_backward);
  module.def("pool_forward", &pool_forward);
  module.def("pool_backward", &pool_backward);
  module.def("conv3x3_kernel", &conv3x3_kernel);
}
