// Needs: avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni
//
// Encoders of the BERT family on packed tokens, fp32 and int8, for one CPU; driven by bert/encoder.py.
//
// Documents are cut into groups of a few hundred tokens. A thread takes a group through the whole network, so its
// activations stay in the core's own cache and threads never wait for each other. Nothing is padded.
//
//   product   rows [R, K] x weights [K, N], in tiles of 12 rows x 32 columns: 24 of the 32 vector registers accumulate.
//             Weights are packed once into panels of 32 columns. One step of a panel is 128 bytes in both precisions:
//             1 k x 32 floats, or 4 k x 32 int8 for vpdpbusd, so both share their loops.
//   int8      x = low_r + scale_r * q, q in 0..255, for each row r when it is needed (dynamic, per token);
//             w = scale_c * v, v in -127..127, for each output column c. Then
//             x.w = scale_r * scale_c * (q.v) + low_r * scale_c * sum(v): two multiply-adds an element.
//             Inputs whose values are large are divided, and their weights multiplied, by sqrt(largest x / largest w),
//             so that both lose about as much. Source: SmoothQuant, Xiao et al. 2023, equation 4 with alpha 0.5.
//             One input in 96, those that move the sums most, stays in fp32 and is added at the end: the few channels
//             with huge values would take the 8 bits from all others. Source: LLM.int8(), Dettmers et al. 2022.
//   attention inside a document, one head at a time, queries in tiles of 12 rows; softmax in base 2, its scale and
//             log2(e) folded into the query weights.
//
// An output element is always summed over k in the same order, whatever tile or group its row is in: the scores of a
// document do not depend on its neighbours, bit for bit.
//
// Suffixes as in Python: T tokens, S sequences, H hidden, K inputs and N outputs of a product, R rows.

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

namespace {

constexpr int kRows = 12;         // rows of a register tile
constexpr int kColumns = 32;      // columns of a panel and of a register tile
constexpr int kStepBytes = 128;   // one step of a packed panel
constexpr int kGroupTokens = 256; // tokens a thread takes through the network at once
constexpr int kOutlierShare = 96; // int8: of so many inputs one stays in fp32

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// ---- memory -------------------------------------------------------------------------------------------------------

template <typename T> struct Aligned {
    struct Free { void operator()(T* p) const { std::free(p); } };
    std::unique_ptr<T[], Free> data;
    size_t size = 0;

    void grow(size_t n) {  // contents are lost
        if (n <= size) return;
        void* p = std::aligned_alloc(64, round_up(n * sizeof(T), 64));
        if (!p) throw std::bad_alloc();
        data.reset(static_cast<T*>(p));
        size = n;
    }
    void zeros(size_t n) { grow(n); std::memset(data.get(), 0, n * sizeof(T)); }
    T* get() const { return data.get(); }
};

// ---- the register tile --------------------------------------------------------------------------------------------

// out[r, 0..32) = sum over steps of a[r, step] * b[step, 0..32), for R rows. Strides in bytes; a advances 4 bytes a step.
// int8: a holds 4 unsigned bytes a step, b 4 signed bytes a column, out int32. Else all are floats.
template <bool INT8, int R>
void tile(const char* a, int64_t lda, const char* b, int64_t ldb, int64_t steps, char* out, int64_t ldo) {
    if constexpr (INT8) {
        __m512i sum[R][2];
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_si512();
        for (int64_t k = 0; k < steps; ++k, a += 4, b += ldb) {
            const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const __m512i x = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(a + r * lda));
                sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], x, b0);
                sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], x, b1);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            _mm512_storeu_si512(out + r * ldo, sum[r][0]);
            _mm512_storeu_si512(out + r * ldo + 64, sum[r][1]);
        }
    } else {
        __m512 sum[R][2];
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (int64_t k = 0; k < steps; ++k, a += 4, b += ldb) {
            const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 64);
#pragma GCC unroll 12
            for (int r = 0; r < R; ++r) {
                const __m512 x = _mm512_set1_ps(*reinterpret_cast<const float*>(a + r * lda));
                sum[r][0] = _mm512_fmadd_ps(x, b0, sum[r][0]);
                sum[r][1] = _mm512_fmadd_ps(x, b1, sum[r][1]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            _mm512_storeu_ps(out + r * ldo, sum[r][0]);
            _mm512_storeu_ps(out + r * ldo + 64, sum[r][1]);
        }
    }
}

using Tile = void (*)(const char*, int64_t, const char*, int64_t, int64_t, char*, int64_t);

template <bool INT8> constexpr Tile kTiles[kRows + 1] = {
    nullptr,       tile<INT8, 1>, tile<INT8, 2>, tile<INT8, 3>, tile<INT8, 4>,  tile<INT8, 5>,  tile<INT8, 6>,
    tile<INT8, 7>, tile<INT8, 8>, tile<INT8, 9>, tile<INT8, 10>, tile<INT8, 11>, tile<INT8, 12>};

void tile_f32(int rows, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, float* out, int64_t ldo) {
    kTiles<false>[rows](reinterpret_cast<const char*>(a), lda * 4, reinterpret_cast<const char*>(b), ldb * 4, k,
                        reinterpret_cast<char*>(out), ldo * 4);
}

// ---- linear layers ------------------------------------------------------------------------------------------------

// A weight matrix in panels. Padding columns and inputs are zero. For int8 only: scale and wsum of each output, what each
// input is multiplied by before it is quantised (0 for outliers), and the outliers with their weights [panel][j][32].
struct Linear {
    bool int8 = false;
    int64_t inputs = 0, outputs = 0, steps = 0, panels = 0;
    Aligned<char> packed;
    Aligned<float> bias, scale, wsum, smooth, outlier_weights;
    std::vector<int32_t> outliers;

    const char* panel(int64_t p) const { return packed.get() + p * steps * kStepBytes; }
};

void pack_float(Linear& w, const float* weight, int64_t n, int64_t k) {
    for (int64_t c = 0; c < n; ++c) {
        float* panel = reinterpret_cast<float*>(w.packed.get() + c / kColumns * w.steps * kStepBytes);
        for (int64_t i = 0; i < k; ++i) panel[i * kColumns + c % kColumns] = weight[c * k + i];
    }
}

// Outliers, and factors for the other inputs, from the largest value that each was seen to have, if that is known.
void balance_inputs(Linear& w, const float* weight, int64_t n, int64_t k, const float* largest) {
    w.smooth.grow(w.inputs);
    std::fill_n(w.smooth.get(), w.inputs, 1.0f);
    if (!largest) return;
    std::vector<float> top(k, 0.0f);
    for (int64_t c = 0; c < n; ++c)
        for (int64_t i = 0; i < k; ++i) top[i] = std::max(top[i], std::fabs(weight[c * k + i]));
    for (int64_t i = 0; i < k; ++i)
        if (top[i] > 0 && largest[i] > 0) w.smooth.get()[i] = std::sqrt(top[i] / largest[i]);
    std::vector<int32_t> order(k);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return top[a] * largest[a] > top[b] * largest[b]; });
    w.outliers.assign(order.begin(), order.begin() + k / kOutlierShare);
    w.outlier_weights.zeros(w.outputs * w.outliers.size());
    for (size_t j = 0; j < w.outliers.size(); ++j) {
        w.smooth.get()[w.outliers[j]] = 0;
        for (int64_t c = 0; c < n; ++c)
            w.outlier_weights.get()[(c / kColumns * w.outliers.size() + j) * kColumns + c % kColumns] = weight[c * k + w.outliers[j]];
    }
}

void pack_int8(Linear& w, const float* weight, int64_t n, int64_t k) {
    std::vector<float> row(k);
    for (int64_t c = 0; c < n; ++c) {
        float top = 0;
        for (int64_t i = 0; i < k; ++i) {
            const float smooth = w.smooth.get()[i];
            row[i] = smooth > 0 ? weight[c * k + i] / smooth : 0;
            top = std::max(top, std::fabs(row[i]));
        }
        const float scale = top > 0 ? top / 127 : 1;
        char* panel = w.packed.get() + c / kColumns * w.steps * kStepBytes;
        int64_t sum = 0;
        for (int64_t i = 0; i < k; ++i) {
            const int v = static_cast<int>(std::lrint(row[i] / scale));
            panel[i / 4 * kStepBytes + c % kColumns * 4 + i % 4] = static_cast<char>(v);
            sum += v;
        }
        w.scale.get()[c] = scale;
        w.wsum.get()[c] = scale * static_cast<float>(sum);
    }
}

// weight [N, K] row-major as torch keeps it, bias [N]; N and K are padded to whole panels and steps.
Linear pack(const float* weight, const float* bias, int64_t n, int64_t k, bool int8 = false, const float* largest = nullptr) {
    Linear w;
    w.int8 = int8;
    w.inputs = round_up(k, kColumns);
    w.outputs = round_up(n, kColumns);
    w.panels = w.outputs / kColumns;
    w.steps = int8 ? w.inputs / 4 : w.inputs;
    w.packed.zeros(w.panels * w.steps * kStepBytes);
    w.bias.zeros(w.outputs);
    w.scale.zeros(w.outputs);
    w.wsum.zeros(w.outputs);
    std::copy(bias, bias + n, w.bias.get());
    if (int8) {
        balance_inputs(w, weight, n, k, largest);
        pack_int8(w, weight, n, k);
    } else {
        pack_float(w, weight, n, k);
    }
    return w;
}

// Rows that go into a product in int8: bytes [R, K], a scale and a lowest value for each row, outliers as they are.
struct Quantised {
    Aligned<uint8_t> bytes;
    Aligned<float> scale, low, outliers;
};

void quantise_row(const float* x, int64_t n, const float* smooth, uint8_t* q, float* scale_out, float* low_out) {
    const auto at = [=](int64_t i) { return _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_load_ps(smooth + i)); };
    __m512 low = at(0), high = low;
    for (int64_t i = 16; i < n; i += 16) {
        const __m512 v = at(i);
        low = _mm512_min_ps(low, v);
        high = _mm512_max_ps(high, v);
    }
    const float lowest = _mm512_reduce_min_ps(low), span = _mm512_reduce_max_ps(high) - lowest;
    const __m512 inverse = _mm512_set1_ps(span > 0 ? 255 / span : 0), base = _mm512_set1_ps(lowest);
    for (int64_t i = 0; i < n; i += 16) {
        const __m512i v = _mm512_cvtps_epu32(_mm512_mul_ps(_mm512_sub_ps(at(i), base), inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtusepi32_epi8(v));
    }
    *scale_out = span / 255;
    *low_out = lowest;
}

void quantise(const float* x, int64_t rows, const Linear& w, Quantised& q) {
    const int64_t n = w.inputs;
    q.bytes.grow(rows * n);
    q.scale.grow(rows);
    q.low.grow(rows);
    const size_t outliers = w.outliers.size();
    q.outliers.grow(rows * outliers);
    for (int64_t r = 0; r < rows; ++r) {
        quantise_row(x + r * n, n, w.smooth.get(), q.bytes.get() + r * n, q.scale.get() + r, q.low.get() + r);
        for (size_t j = 0; j < outliers; ++j) q.outliers.get()[r * outliers + j] = x[r * n + w.outliers[j]];
    }
}

// Where a product writes: element (r, panel p, column c) is at data + r * row + p / group * head + p % group * 32 + c.
struct Target {
    float* data;
    int64_t row;
    int64_t head = kColumns;
    int64_t group = 1;
    bool add = false;  // onto what is there
};

struct Pair {
    __m512 first, second;

    static Pair load(const float* p) { return {_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16)}; }
    void store(float* p) const { _mm512_storeu_ps(p, first), _mm512_storeu_ps(p + 16, second); }
};

Pair operator+(Pair a, Pair b) { return {_mm512_add_ps(a.first, b.first), _mm512_add_ps(a.second, b.second)}; }
Pair operator*(Pair a, Pair b) { return {_mm512_mul_ps(a.first, b.first), _mm512_mul_ps(a.second, b.second)}; }

Pair fma(float x, Pair w, Pair sum) {
    const __m512 v = _mm512_set1_ps(x);
    return {_mm512_fmadd_ps(v, w.first, sum.first), _mm512_fmadd_ps(v, w.second, sum.second)};
}

// Sums of panel p, rows [r0, r0 + rows), to outputs.
void finish_float(const Linear& w, int64_t p, const char* sums, int rows, const Target& to, float* out) {
    const Pair bias = Pair::load(w.bias.get() + p * kColumns);
    for (int r = 0; r < rows; ++r, out += to.row) {
        Pair y = Pair::load(reinterpret_cast<const float*>(sums + r * kStepBytes)) + bias;
        if (to.add) y = y + Pair::load(out);
        y.store(out);
    }
}

void finish_int8(const Linear& w, int64_t p, const char* sums, int rows, const Quantised& q, int64_t r0, const Target& to, float* out) {
    const Pair bias = Pair::load(w.bias.get() + p * kColumns), scale = Pair::load(w.scale.get() + p * kColumns),
               wsum = Pair::load(w.wsum.get() + p * kColumns);
    const int64_t outliers = w.outliers.size();
    const float *x = q.outliers.get() + r0 * outliers, *weights = w.outlier_weights.get() + p * outliers * kColumns;
    for (int r = 0; r < rows; ++r, out += to.row, x += outliers) {
        const char* at = sums + r * kStepBytes;
        const Pair sum{_mm512_cvtepi32_ps(_mm512_load_si512(at)), _mm512_cvtepi32_ps(_mm512_load_si512(at + 64))};
        Pair y = fma(q.low.get()[r0 + r], wsum, fma(q.scale.get()[r0 + r], sum * scale, bias));
        for (int64_t j = 0; j < outliers; ++j) y = fma(x[j], Pair::load(weights + j * kColumns), y);
        if (to.add) y = y + Pair::load(out);
        y.store(out);
    }
}

// Panels [first, last) of x [R, K] times w, plus bias. x is contiguous; for int8 it lies in q.
void product(const float* x, const Quantised& q, int64_t rows, const Linear& w, int64_t first, int64_t last, Target to) {
    alignas(64) char sums[kRows * kStepBytes];
    const char* a = w.int8 ? reinterpret_cast<const char*>(q.bytes.get()) : reinterpret_cast<const char*>(x);
    const int64_t lda = w.int8 ? w.inputs : w.inputs * 4;
    const Tile* tiles = w.int8 ? kTiles<true> : kTiles<false>;
    for (int64_t p = first; p < last; ++p) {
        float* column = to.data + (p - first) / to.group * to.head + (p - first) % to.group * kColumns;
        for (int64_t r = 0; r < rows; r += kRows) {
            const int n = static_cast<int>(std::min<int64_t>(kRows, rows - r));
            tiles[n](a + r * lda, lda, w.panel(p), kStepBytes, w.steps, sums, kStepBytes);
            if (w.int8) finish_int8(w, p, sums, n, q, r, to, column + r * to.row);
            else finish_float(w, p, sums, n, to, column + r * to.row);
        }
    }
}

void linear(const float* x, Quantised& q, int64_t rows, const Linear& w, Target to) {
    if (w.int8) quantise(x, rows, w, q);
    product(x, q, rows, w, 0, w.panels, to);
}

// ---- element-wise -------------------------------------------------------------------------------------------------

enum Activation { kNone = 0, kRelu = 1, kGelu = 2, kGeluTanh = 3, kTanh = 4 };

// relu(x) - gelu(x) is even, smooth and zero beyond 6: 32 pieces of degree 4, fitted at Chebyshev points in double,
// are within 2e-8 of it, for the exact form and the tanh form alike, and a lookup is one permutation of registers.
struct GeluTable {
    static constexpr double kEnd = 6.0;
    static constexpr int kPieces = 32, kDegree = 4;
    float coefficient[kDegree + 1][kPieces];

    static double below_relu(double x, bool tanh_form) {
        const double phi = tanh_form ? 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (-x - 0.044715 * x * x * x)))
                                     : 0.5 * std::erfc(x / std::sqrt(2.0));
        return x * phi;
    }
    explicit GeluTable(bool tanh_form) {
        const double width = kEnd / (kPieces - 1);  // piece i is centred at i * width, so that rounding finds it
        for (int i = 0; i < kPieces; ++i) fit(i, width, tanh_form);
    }
    void fit(int piece, double width, bool tanh_form) {  // Newton's divided differences, expanded to powers
        double node[kDegree + 1], value[kDegree + 1], power[kDegree + 1] = {};
        for (int j = 0; j <= kDegree; ++j) {
            node[j] = 0.5 * std::cos(M_PI * (2 * j + 1) / (2 * (kDegree + 1)));
            value[j] = below_relu(std::fabs((piece + node[j]) * width), tanh_form);
            if (piece == 0) value[j] = below_relu((piece + node[j]) * width, tanh_form);
        }
        for (int level = 1; level <= kDegree; ++level)
            for (int j = kDegree; j >= level; --j) value[j] = (value[j] - value[j - 1]) / (node[j] - node[j - level]);
        for (int j = kDegree; j >= 0; --j) {
            for (int d = kDegree; d > 0; --d) power[d] = power[d - 1] - node[j] * power[d];
            power[0] = value[j] - node[j] * power[0];
        }
        for (int d = 0; d <= kDegree; ++d) coefficient[d][piece] = static_cast<float>(power[d]);
    }
};

void gelu_row(float* x, int64_t n, const GeluTable& table) {
    __m512 c[GeluTable::kDegree + 1][2];
    for (int d = 0; d <= GeluTable::kDegree; ++d)
        for (int half = 0; half < 2; ++half) c[d][half] = _mm512_loadu_ps(table.coefficient[d] + half * 16);
    const __m512 end = _mm512_set1_ps(GeluTable::kEnd), pieces = _mm512_set1_ps((GeluTable::kPieces - 1) / GeluTable::kEnd);
    const __m512 shift = _mm512_set1_ps(12582912.0f);  // 1.5 * 2^23: adding it rounds, and leaves the piece in the low bits
    for (int64_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_loadu_ps(x + i);
        const __m512 at = _mm512_mul_ps(_mm512_min_ps(_mm512_abs_ps(v), end), pieces);
        const __m512 rounded = _mm512_add_ps(at, shift);
        const __m512 t = _mm512_sub_ps(at, _mm512_sub_ps(rounded, shift));
        const __m512i piece = _mm512_castps_si512(rounded);
        __m512 y = _mm512_permutex2var_ps(c[4][0], piece, c[4][1]);
        for (int d = 3; d >= 0; --d) y = _mm512_fmadd_ps(y, t, _mm512_permutex2var_ps(c[d][0], piece, c[d][1]));
        _mm512_storeu_ps(x + i, _mm512_sub_ps(_mm512_max_ps(v, _mm512_setzero_ps()), y));
    }
}

void activate_row(float* x, int64_t n, int activation) {
    static const GeluTable exact(false), with_tanh(true);
    if (activation == kGelu) gelu_row(x, n, exact);
    if (activation == kGeluTanh) gelu_row(x, n, with_tanh);
    if (activation == kRelu) for (int64_t i = 0; i < n; ++i) x[i] = std::max(x[i], 0.0f);
    if (activation == kTanh) for (int64_t i = 0; i < n; ++i) x[i] = std::tanh(x[i]);
}

struct Norm {
    Aligned<float> weight, bias;
    int64_t size = 0;
    float epsilon = 0;

    // In place; columns [size, stride) become zero.
    void row(float* x, int64_t stride) const {
        __m512 sum = _mm512_setzero_ps(), squares = sum;
        for (int64_t i = 0; i < stride; i += 16) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask(i), x + i));
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / size);
        for (int64_t i = 0; i < stride; i += 16) {
            const __m512 v = _mm512_maskz_sub_ps(mask(i), _mm512_loadu_ps(x + i), mean);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        const __m512 inverse = _mm512_set1_ps(1 / std::sqrt(_mm512_reduce_add_ps(squares) / size + epsilon));
        for (int64_t i = 0; i < stride; i += 16) {
            const __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), inverse);
            const __m512 y = _mm512_fmadd_ps(v, _mm512_load_ps(weight.get() + i), _mm512_load_ps(bias.get() + i));
            _mm512_storeu_ps(x + i, _mm512_maskz_mov_ps(mask(i), y));
        }
    }
    __mmask16 mask(int64_t i) const {
        return size - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << std::max<int64_t>(0, size - i)) - 1);
    }
};

Norm make_norm(const float* weight, const float* bias, int64_t size, float epsilon) {
    Norm norm;
    norm.size = size;
    norm.epsilon = epsilon;
    norm.weight.zeros(round_up(size, kColumns));
    norm.bias.zeros(round_up(size, kColumns));
    std::copy(weight, weight + size, norm.weight.get());
    std::copy(bias, bias + size, norm.bias.get());
    return norm;
}

// ---- attention ----------------------------------------------------------------------------------------------------

// 2^x for x <= 0, to about 1e-7: the rounded part by scaling, the rest, in [-0.5, 0.5], by its Taylor series.
__m512 exp2_of(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 t = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.5403530393381609e-4f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.3333558146428443e-3f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(9.6181291076284772e-3f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(5.5504108664821580e-2f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(2.4022650695910071e-1f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(6.9314718055994531e-1f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

// s[0..n) becomes 2^(s - max); returns 1 / their sum. s may be read and written up to the next 16.
float softmax_row(float* s, int64_t n) {
    const __mmask16 tail = static_cast<__mmask16>((1u << (n % 16)) - 1);
    const int64_t whole = n / 16 * 16;
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < whole; i += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(s + i));
    if (tail) top = _mm512_mask_max_ps(top, tail, top, _mm512_loadu_ps(s + whole));
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (int64_t i = 0; i < whole; i += 16) {
        const __m512 e = exp2_of(_mm512_sub_ps(_mm512_loadu_ps(s + i), top));
        _mm512_storeu_ps(s + i, e);
        sum = _mm512_add_ps(sum, e);
    }
    if (tail) {
        const __m512 e = _mm512_maskz_mov_ps(tail, exp2_of(_mm512_sub_ps(_mm512_loadu_ps(s + whole), top)));
        _mm512_storeu_ps(s + whole, e);
        sum = _mm512_add_ps(sum, e);
    }
    return 1 / _mm512_reduce_add_ps(sum);
}

void transpose_16(const float* from, int64_t ld, int rows, float* to, int64_t ldt) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_loadu_ps(from + i * ld) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        const auto lo = [](__m512 a, __m512 b) { return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); };
        const auto hi = [](__m512 a, __m512 b) { return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); };
        r[i] = lo(t[i], t[i + 2]);
        r[i + 1] = hi(t[i], t[i + 2]);
        r[i + 2] = lo(t[i + 1], t[i + 3]);
        r[i + 3] = hi(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {  // r[4g + i] holds column 4q + i of rows 4g..4g+3 in its quarter q
        const __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        const __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        _mm512_storeu_ps(to + i * ldt, _mm512_shuffle_f32x4(a, c, 0x88));
        _mm512_storeu_ps(to + (4 + i) * ldt, _mm512_shuffle_f32x4(b, d, 0x88));
        _mm512_storeu_ps(to + (8 + i) * ldt, _mm512_shuffle_f32x4(a, c, 0xdd));
        _mm512_storeu_ps(to + (12 + i) * ldt, _mm512_shuffle_f32x4(b, d, 0xdd));
    }
}

// keys [n, width] into panels of 32 keys: [n / 32][width][32], zeros behind the last key.
void pack_keys(const float* keys, int64_t n, int64_t width, float* panels) {
    for (int64_t j = 0; j < round_up(n, kColumns); j += 16) {
        const int rows = static_cast<int>(std::clamp<int64_t>(n - j, 0, 16));
        float* panel = panels + j / kColumns * kColumns * width + j % kColumns;
        for (int64_t d = 0; d < width; d += 16) transpose_16(keys + j * width + d, width, rows, panel + d * kColumns, kColumns);
    }
}

struct AttentionScratch {
    Aligned<float> keys, scores;
};

// One head of one document. q [nq, width], k and v [n, width] contiguous; out [nq, ldo], columns [0, width).
void attend(const float* q, int64_t nq, const float* k, const float* v, int64_t n, int64_t width, float* out, int64_t ldo,
            AttentionScratch& scratch) {
    const int64_t padded = round_up(n, kColumns);
    scratch.keys.grow(padded * width);
    scratch.scores.grow(kRows * padded);
    float *keys = scratch.keys.get(), *scores = scratch.scores.get();
    pack_keys(k, n, width, keys);
    for (int64_t r = 0; r < nq; r += kRows) {
        const int rows = static_cast<int>(std::min<int64_t>(kRows, nq - r));
        for (int64_t j = 0; j < padded; j += kColumns)
            tile_f32(rows, q + r * width, width, keys + j * width, kColumns, width, scores + j, padded);
        float inverse[kRows];
        for (int i = 0; i < rows; ++i) inverse[i] = softmax_row(scores + i * padded, n);
        for (int64_t d = 0; d < width; d += kColumns) tile_f32(rows, scores, padded, v + d, width, n, out + r * ldo + d, ldo);
        for (int i = 0; i < rows; ++i) {
            float* row = out + (r + i) * ldo;
            for (int64_t d = 0; d < width; d += 16)
                _mm512_storeu_ps(row + d, _mm512_mul_ps(_mm512_loadu_ps(row + d), _mm512_set1_ps(inverse[i])));
        }
    }
}

// ---- the network --------------------------------------------------------------------------------------------------

struct Layer {
    Linear qkv, out, up, down;
    Norm attention_norm, output_norm;
};

struct HeadLayer {
    Linear linear;
    int activation;
};

struct Workspace {
    Aligned<float> hidden, embedded, queries, qkv, context, wide, head[2];
    Quantised quantised;
    AttentionScratch attention;
    float* largest = nullptr;  // where to note the largest inputs of the next product, if anybody wants to know

    // x [rows, n], n a multiple of kColumns.
    void note(const float* x, int64_t rows, int64_t n) {
        if (!largest) return;
        for (int64_t r = 0; r < rows; ++r, x += n)
            for (int64_t i = 0; i < n; i += 16) {
                const __m512 seen = _mm512_loadu_ps(largest + i);
                _mm512_storeu_ps(largest + i, _mm512_max_ps(seen, _mm512_abs_ps(_mm512_loadu_ps(x + i))));
            }
        largest += n;
    }
};

}  // namespace

// Sizes as in transformers' configs. Must match bert/encoder.py.
struct Shape {
    int32_t vocabulary, positions, types, embedding, hidden, intermediate, heads, layers, activation, head_layers, labels;
    float epsilon;
    int32_t head_sizes[4];
    int32_t head_activations[4];
};

struct Encoder {
    Shape shape;
    int64_t width = 0;    // of a head, padded to whole panels
    int64_t stride = 0;   // of a hidden row
    std::vector<float> words, positions, type;  // type: row 0, all that a single text uses
    Norm embedding_norm;
    Linear project;
    std::vector<Layer> layers;
    std::vector<HeadLayer> head;
    std::mutex mutex;
    std::vector<std::unique_ptr<Workspace>> idle;

    // The next array of weights, in the order of bert/encoder.py.
    struct Reader {
        const float* const* next;
        const float* operator()() { return *next++; }
    };

    Encoder(const Shape& s, const float* const* weights, const uint8_t* int8, const float* largest) : shape(s) {
        Reader read{weights};
        const int64_t e = s.embedding, h = s.hidden;
        stride = round_up(h, kColumns);
        width = round_up(h / s.heads, kColumns);
        const float* array = read();
        words.assign(array, array + s.vocabulary * e);
        array = read();
        positions.assign(array, array + s.positions * e);
        array = read();
        if (s.types) type.assign(array, array + e); else type.assign(e, 0.0f);
        const float *w = read(), *b = read();
        embedding_norm = make_norm(w, b, e, s.epsilon);
        w = read(), b = read();
        if (e != h) project = pack(w, b, h, e);
        for (int i = 0; i < s.layers; ++i) layers.push_back(read_layer(read, int8 + 4 * i, largest));
        int64_t inputs = h;
        for (int i = 0; i < s.head_layers; ++i) {
            w = read(), b = read();
            head.push_back({pack(w, b, s.head_sizes[i], inputs), s.head_activations[i]});
            inputs = s.head_sizes[i];
        }
    }

    // largest, unless null, is moved past what it says of this layer.
    Layer read_layer(Reader& read, const uint8_t* int8, const float*& largest) {
        Layer layer;
        const int64_t h = shape.hidden, wide = shape.intermediate;
        const auto inputs = [&largest](int64_t k) {
            const float* here = largest;
            if (largest) largest += round_up(k, kColumns);
            return here;
        };
        layer.qkv = read_qkv(read, int8[0], inputs(h));
        const float *w = read(), *b = read();
        layer.out = pack(spread_inputs(w).data(), b, h, width * shape.heads, int8[1], inputs(width * shape.heads));
        w = read(), b = read();
        layer.attention_norm = make_norm(w, b, h, shape.epsilon);
        w = read(), b = read();
        layer.up = pack(w, b, wide, h, int8[2], inputs(h));
        w = read(), b = read();
        layer.down = pack(w, b, h, wide, int8[3], inputs(wide));
        w = read(), b = read();
        layer.output_norm = make_norm(w, b, h, shape.epsilon);
        return layer;
    }

    // Floats that observe() fills.
    int64_t input_count() const {
        int64_t n = 0;
        for (const Layer& layer : layers) n += layer.qkv.inputs + layer.out.inputs + layer.up.inputs + layer.down.inputs;
        return n;
    }

    // Query, key and value in one product; a head's columns padded to its width; queries scaled for a softmax in base 2.
    Linear read_qkv(Reader& read, bool int8, const float* largest) {
        const int64_t h = shape.hidden, size = h / shape.heads, n = width * shape.heads;
        const float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(size)));
        std::vector<float> weight(3 * n * h, 0.0f), bias(3 * n, 0.0f);
        for (int part = 0; part < 3; ++part) {
            const float *w = read(), *b = read(), factor = part == 0 ? scale : 1;
            for (int64_t c = 0; c < h; ++c) {
                const int64_t to = part * n + c / size * width + c % size;
                bias[to] = b[c] * factor;
                for (int64_t k = 0; k < h; ++k) weight[to * h + k] = w[c * h + k] * factor;
            }
        }
        return pack(weight.data(), bias.data(), 3 * n, h, int8, largest);
    }

    // The output projection reads heads padded to their width.
    std::vector<float> spread_inputs(const float* w) const {
        const int64_t h = shape.hidden, size = h / shape.heads, n = width * shape.heads;
        std::vector<float> weight(h * n, 0.0f);
        for (int64_t c = 0; c < h; ++c)
            for (int64_t k = 0; k < h; ++k) weight[c * n + k / size * width + k % size] = w[c * h + k];
        return weight;
    }

    void embed(const int32_t* ids, const int32_t* places, int64_t tokens, Workspace& w) const {
        const int64_t e = shape.embedding, ld = round_up(e, kColumns);
        Aligned<float>& rows = e == shape.hidden ? w.hidden : w.embedded;
        rows.grow(tokens * ld);
        w.hidden.grow(tokens * stride);
        for (int64_t t = 0; t < tokens; ++t) {
            const float *word = &words[ids[t] * e], *place = &positions[places[t] * e];
            float* x = rows.get() + t * ld;
            for (int64_t i = 0; i < e; ++i) x[i] = word[i] + type[i] + place[i];
            embedding_norm.row(x, ld);
        }
        if (e != shape.hidden) linear(rows.get(), w.quantised, tokens, project, {w.hidden.get(), stride});
    }

    // Sequences [s0, s1) through the network into logits [S, labels].
    void group(const int32_t* ids, const int32_t* places, const int64_t* offsets, int64_t s0, int64_t s1, float* logits,
               Workspace& w) const {
        const int64_t start = offsets[s0], tokens = offsets[s1] - start;
        embed(ids + start, places + start, tokens, w);
        for (size_t i = 0; i + 1 < layers.size(); ++i) {
            attention(layers[i], offsets + s0, s1 - s0, false, w);
            feed_forward(layers[i], w.hidden.get(), tokens, w);
        }
        // Of the last layer only the first token of each sequence is wanted: its keys and values are those of all.
        attention(layers.back(), offsets + s0, s1 - s0, true, w);
        feed_forward(layers.back(), w.queries.get(), s1 - s0, w);
        classify(w, s1 - s0, logits + s0 * shape.labels);
    }

    // hidden += attention(hidden), normalised; with first_only, into w.queries: the first rows alone.
    void attention(const Layer& layer, const int64_t* offsets, int64_t sequences, bool first_only, Workspace& w) const {
        const int64_t tokens = offsets[sequences] - offsets[0], n = width * shape.heads, part = layer.qkv.panels / 3;
        const int64_t asking = first_only ? sequences : tokens, group = width / kColumns;
        w.qkv.grow(3 * n * tokens);
        w.context.grow(asking * n);
        float *q = w.qkv.get(), *k = q + n * tokens, *v = k + n * tokens, *rows = w.hidden.get();
        w.note(rows, tokens, stride);
        if (layer.qkv.int8) quantise(rows, tokens, layer.qkv, w.quantised);
        product(rows, w.quantised, tokens, layer.qkv, part, 3 * part, {k, width, width * tokens, group});
        if (first_only) {
            w.queries.grow(sequences * stride);
            rows = w.queries.get();
            for (int64_t s = 0; s < sequences; ++s)
                std::copy_n(w.hidden.get() + (offsets[s] - offsets[0]) * stride, stride, rows + s * stride);
            if (layer.qkv.int8) quantise(rows, asking, layer.qkv, w.quantised);
        }
        product(rows, w.quantised, asking, layer.qkv, 0, part, {q, width, width * asking, group});
        for (int64_t head = 0; head < shape.heads; ++head)
            for (int64_t s = 0; s < sequences; ++s) {
                const int64_t at = offsets[s] - offsets[0], length = offsets[s + 1] - offsets[s];
                const int64_t from = first_only ? s : at, base = (head * tokens + at) * width;
                attend(q + (head * asking + from) * width, first_only ? 1 : length, k + base, v + base, length, width,
                       w.context.get() + from * n + head * width, n, w.attention);
            }
        w.note(w.context.get(), asking, n);
        linear(w.context.get(), w.quantised, asking, layer.out, {rows, stride, kColumns, 1, true});
        for (int64_t r = 0; r < asking; ++r) layer.attention_norm.row(rows + r * stride, stride);
    }

    void feed_forward(const Layer& layer, float* rows, int64_t count, Workspace& w) const {
        const int64_t wide = layer.up.outputs;
        w.wide.grow(count * wide);
        w.note(rows, count, stride);
        linear(rows, w.quantised, count, layer.up, {w.wide.get(), wide});
        for (int64_t i = 0; i < count; ++i) activate_row(w.wide.get() + i * wide, wide, shape.activation);
        w.note(w.wide.get(), count, wide);
        linear(w.wide.get(), w.quantised, count, layer.down, {rows, stride, kColumns, 1, true});
        for (int64_t i = 0; i < count; ++i) layer.output_norm.row(rows + i * stride, stride);
    }

    void classify(Workspace& w, int64_t sequences, float* logits) const {
        const float* x = w.queries.get();
        int64_t ld = stride;
        for (size_t i = 0; i < head.size(); ++i) {
            Aligned<float>& y = w.head[i % 2];
            ld = head[i].linear.outputs;
            y.grow(sequences * ld);
            linear(x, w.quantised, sequences, head[i].linear, {y.get(), ld});
            for (int64_t s = 0; s < sequences; ++s) activate_row(y.get() + s * ld, ld, head[i].activation);
            x = y.get();
        }
        for (int64_t s = 0; s < sequences; ++s) std::copy_n(x + s * ld, shape.labels, logits + s * shape.labels);
    }

    std::unique_ptr<Workspace> borrow() {
        std::lock_guard<std::mutex> lock(mutex);
        if (idle.empty()) return std::make_unique<Workspace>();
        auto workspace = std::move(idle.back());
        idle.pop_back();
        return workspace;
    }

    void give_back(std::unique_ptr<Workspace> workspace) {
        std::lock_guard<std::mutex> lock(mutex);
        idle.push_back(std::move(workspace));
    }
};

namespace {

// First sequence of each group, and the end. Groups hold up to kGroupTokens, fewer where threads would go idle.
std::vector<int64_t> make_groups(const int64_t* offsets, int64_t sequences, int threads) {
    const int64_t tokens = offsets[sequences] - offsets[0];
    const int64_t budget = std::clamp<int64_t>(tokens / std::max(1, threads), 1, kGroupTokens);
    std::vector<int64_t> groups{0};
    for (int64_t s = 1; s < sequences; ++s)
        if (offsets[s + 1] - offsets[groups.back()] > budget) groups.push_back(s);
    groups.push_back(sequences);
    return groups;
}

}  // namespace

extern "C" {

// int8 [layers, 4]: products (qkv, out, up, down) to run in int8. largest: what encoder_observe found, or null.
// Returns null when memory ran out.
Encoder* encoder_create(const Shape* shape, const float* const* weights, const uint8_t* int8, const float* largest) {
    try {
        return new Encoder(*shape, weights, int8, largest);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void encoder_free(Encoder* encoder) { delete encoder; }

int64_t encoder_input_count(const Encoder* encoder) { return encoder->input_count(); }

// ids, places [T], offsets [S + 1] from 0, no empty sequence, all ids and places in range -> logits [S, labels].
// largest, unless null: [input_count], raised to the largest absolute input of each product's each column.
// Returns 0, or 1 when memory ran out.
int encoder_run(Encoder* encoder, const int32_t* ids, const int32_t* places, const int64_t* offsets, int64_t sequences,
                float* logits, int threads, float* largest) {
    if (sequences == 0) return 0;
    const std::vector<int64_t> groups = make_groups(offsets, sequences, threads);
    std::atomic<size_t> next{0};
    std::atomic<int> failed{0};
    std::mutex noting;
    const auto work = [&] {
        try {
            auto workspace = encoder->borrow();
            std::vector<float> seen(largest ? encoder->input_count() : 0);
            for (size_t g; !failed && (g = next++) + 1 < groups.size();) {
                workspace->largest = largest ? seen.data() : nullptr;
                encoder->group(ids, places, offsets, groups[g], groups[g + 1], logits, *workspace);
            }
            encoder->give_back(std::move(workspace));
            std::lock_guard<std::mutex> lock(noting);
            for (size_t i = 0; i < seen.size(); ++i) largest[i] = std::max(largest[i], seen[i]);
        } catch (const std::bad_alloc&) {
            failed = 1;
        }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads && static_cast<size_t>(i) + 1 < groups.size(); ++i) others.emplace_back(work);
    work();
    for (auto& thread : others) thread.join();
    return failed;
}

// y [R, N] = activation(x [R, K] weight^T + bias) with the kernels above, for measuring and for tests.
int encoder_linear(const float* x, const float* weight, const float* bias, int64_t rows, int64_t n, int64_t k, int int8,
                   int activation, int repeats, float* y) {
    try {
        const Linear w = pack(weight, bias, n, k, int8);
        Quantised q;
        Aligned<float> in, out;
        in.zeros(rows * w.inputs);
        out.zeros(rows * w.outputs);
        for (int64_t r = 0; r < rows; ++r) std::copy_n(x + r * k, k, in.get() + r * w.inputs);
        if (int8) quantise(in.get(), rows, w, q);
        for (int i = 0; i < repeats; ++i) product(in.get(), q, rows, w, 0, w.panels, {out.get(), w.outputs});
        for (int64_t r = 0; r < rows; ++r) {
            activate_row(out.get() + r * w.outputs, w.outputs, activation);
            std::copy_n(out.get() + r * w.outputs, n, y + r * n);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
}
