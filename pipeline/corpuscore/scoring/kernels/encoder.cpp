// Levels: avx512vnni avx512 avxvnni avx2 plain
//
// Encoders of the BERT family on packed tokens, fp32 and int8, for one CPU; driven by bert/encoder.py.
//
// Documents are cut into groups of a few hundred tokens. A thread takes a group through the whole network, so its
// activations stay in the core's own cache and threads never wait for each other. Nothing is padded.
//
//   product   rows [R, K] x weights [K, N], in the register tiles of lanes.h. Weights are packed once into panels of 32
//             columns. One step of a panel is 128 bytes in both precisions, 1 k x 32 floats or 4 k x 32 int8, so both
//             share their loops.
//   int8      x = low_r + scale_r * q, q in 0..255, for each row r when it is needed (dynamic, per token);
//             w = scale_c * v, v in -127..127, for each output column c. Then
//             x.w = scale_r * scale_c * (q.v) + low_r * scale_c * sum(v): two multiply-adds an element.
//             Inputs whose values are large are divided, and their weights multiplied, by sqrt(largest x / largest w),
//             so that both lose about as much. Source: SmoothQuant, Xiao et al. 2023, equation 4 with alpha 0.5.
//             One input in 96, those that move the sums most, stays in fp32 and is added at the end: the few channels
//             with huge values would take the 8 bits from all others. Source: LLM.int8(), Dettmers et al. 2022.
//   attention inside a document, one head at a time, queries in tiles of rows; softmax in base 2, its scale and
//             log2(e) folded into the query weights.
//
// An output element is always summed over k in the same order, whatever tile or group its row is in: the scores of a
// document do not depend on its neighbours, bit for bit. A NaN in what is read comes out as NaN, in int8 too.
//
// Suffixes as in Python: T tokens, S sequences, H hidden, K inputs and N outputs of a product, R rows.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <vector>

#include "lanes.h"
#include "sharing.h"

using namespace lanes;

namespace {

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

// ---- int8 ---------------------------------------------------------------------------------------------------------

// A step of a tile in int8: 4 unsigned bytes of a row times 4 signed bytes of each column. Sums are exact everywhere.
struct Dot {
    typedef Whole Sum;
    static INLINE Sum spread(const char* a) {
        int32_t x;
        std::memcpy(&x, a, sizeof x);
        return x - Whole{};
    }
#if defined(__AVX512VNNI__)
    static INLINE Sum add(Sum x, Sum weight, Sum sum) {
        return (Sum)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)weight);
    }
#elif defined(__AVXVNNI__)
    static INLINE Sum add(Sum x, Sum weight, Sum sum) {
        return (Sum)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)weight);
    }
#else
    // Even bytes and odd bytes as numbers of 16 bits, whose products in pairs fit into 32.
    typedef int16_t Halves __attribute__((vector_size(WIDTH * 4)));
    typedef uint16_t Unsigned __attribute__((vector_size(WIDTH * 4)));
    static INLINE Sum add(Sum x, Sum weight, Sum sum) {
        const Halves even_x = (Halves)(x & 0x00ff00ff), odd_x = (Halves)((Unsigned)x >> 8);
        const Halves even_w = (Halves)((Unsigned)weight << 8) >> 8, odd_w = (Halves)weight >> 8;
        return sum + pairs(even_x, even_w) + pairs(odd_x, odd_w);
    }
#if defined(__AVX512BW__)
    static INLINE Sum pairs(Halves a, Halves b) { return (Sum)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
    static INLINE Sum pairs(Halves a, Halves b) { return (Sum)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
#else
    static INLINE Sum pairs(Halves a, Halves b) {
        Sum sum;
        for (int i = 0; i < WIDTH; i++) sum[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
        return sum;
    }
#endif
#endif
};

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
        float* panel = reinterpret_cast<float*>(w.packed.get() + c / COLUMNS * w.steps * kStepBytes);
        for (int64_t i = 0; i < k; ++i) panel[i * COLUMNS + c % COLUMNS] = weight[c * k + i];
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
            w.outlier_weights.get()[(c / COLUMNS * w.outliers.size() + j) * COLUMNS + c % COLUMNS] = weight[c * k + w.outliers[j]];
    }
}

void pack_int8(Linear& w, const float* weight, int64_t n, int64_t k) {
    std::vector<float> row(k);
    for (int64_t c = 0; c < n; ++c) {
        float top = 0, nan = 0;
        for (int64_t i = 0; i < k; ++i) {
            const float smooth = w.smooth.get()[i];
            row[i] = smooth > 0 ? weight[c * k + i] / smooth : 0;
            nan += row[i] * 0;  // 0, or NaN where a weight has no place on a scale
            if (std::isnan(row[i])) row[i] = 0;
            top = std::max(top, std::fabs(row[i]));
        }
        const float scale = (top > 0 ? top / 127 : 1) + nan;
        char* panel = w.packed.get() + c / COLUMNS * w.steps * kStepBytes;
        int64_t sum = 0;
        for (int64_t i = 0; i < k; ++i) {
            const int v = std::isnan(scale) ? 0 : static_cast<int>(std::lrint(row[i] / scale));
            panel[i / 4 * kStepBytes + c % COLUMNS * 4 + i % 4] = static_cast<char>(v);
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
    w.inputs = round_up(k, COLUMNS);
    w.outputs = round_up(n, COLUMNS);
    w.panels = w.outputs / COLUMNS;
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
    const auto at = [=](int64_t i) { return load(x + i) * load(smooth + i); };
    Vector low = at(0), high = low, nan = zero();
    for (int64_t i = 0; i < n; i += LANES) {
        const Vector v = at(i);
        low = smaller(v, low);
        high = larger(v, high);
        nan = fma(v, zero(), nan);  // 0, or NaN where a value has no place on a scale
    }
    const float lowest = smallest_of(low), span = largest_of(high) - lowest;
    const Vector inverse = splat(span > 0 ? 255 / span : 0), base = splat(lowest);
    for (int64_t i = 0; i < n; i += LANES) {
        uint32_t lane[LANES];
        const Vector v = (at(i) - base) * inverse;
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) {
            Bits whole;
            rounded(v.part[p], whole);
            std::memcpy(lane + p * WIDTH, &whole, sizeof whole);
        }
        for (int j = 0; j < LANES; ++j) q[i + j] = static_cast<uint8_t>(lane[j]);
    }
    *scale_out = span / 255 + sum_of(nan);
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
    int64_t head = COLUMNS;
    int64_t group = 1;
    bool add = false;  // onto what is there
};

// Sums of panel p, rows [r0, r0 + rows), to outputs.
void finish_float(const Linear& w, int64_t p, const float* sums, int rows, const Target& to, float* out) {
    for (int column = 0; column < COLUMNS; column += LANES) {
        const Vector bias = load(w.bias.get() + p * COLUMNS + column);
        for (int r = 0; r < rows; ++r) {
            float* target = out + r * to.row + column;
            const Vector y = load(sums + r * COLUMNS + column) + bias;
            store(target, to.add ? y + load(target) : y);
        }
    }
}

Vector floats_of(const int32_t* from) {
    return each([=](int p) {
        Whole whole;
        std::memcpy(&whole, from + p * WIDTH, sizeof whole);
        return __builtin_convertvector(whole, Part);
    });
}

void finish_int8(const Linear& w, int64_t p, const int32_t* sums, int rows, const Quantised& q, int64_t r0, const Target& to, float* out) {
    const int64_t outliers = w.outliers.size();
    const float *x = q.outliers.get() + r0 * outliers, *weights = w.outlier_weights.get() + p * outliers * COLUMNS;
    for (int column = 0; column < COLUMNS; column += LANES) {
        const int64_t at = p * COLUMNS + column;
        const Vector bias = load(w.bias.get() + at), scale = load(w.scale.get() + at), wsum = load(w.wsum.get() + at);
        for (int r = 0; r < rows; ++r) {
            float* target = out + r * to.row + column;
            Vector y = fma(splat(q.scale.get()[r0 + r]), floats_of(sums + r * COLUMNS + column) * scale, bias);
            y = fma(splat(q.low.get()[r0 + r]), wsum, y);
            for (int64_t j = 0; j < outliers; ++j)
                y = fma(splat(x[r * outliers + j]), load(weights + j * COLUMNS + column), y);
            store(target, to.add ? y + load(target) : y);
        }
    }
}

// Panels [first, last) of x [R, K] times w, plus bias. x is contiguous; for int8 it lies in q.
void product(const float* x, const Quantised& q, int64_t rows, const Linear& w, int64_t first, int64_t last, Target to) {
    alignas(64) int32_t whole[TILE_ROWS * COLUMNS];
    alignas(64) float sums[TILE_ROWS * COLUMNS];
    for (int64_t p = first; p < last; ++p) {
        float* column = to.data + (p - first) / to.group * to.head + (p - first) % to.group * COLUMNS;
        for (int64_t r = 0; r < rows; r += TILE_ROWS, column += TILE_ROWS * to.row) {
            const int n = static_cast<int>(std::min<int64_t>(TILE_ROWS, rows - r));
            if (w.int8) {
                const char* a = reinterpret_cast<const char*>(q.bytes.get()) + r * w.inputs;
                tile<Dot>(n, a, w.inputs, w.panel(p), kStepBytes, w.steps, reinterpret_cast<char*>(whole), kStepBytes);
                finish_int8(w, p, whole, n, q, r, to, column);
            } else {
                const float* panel = reinterpret_cast<const float*>(w.panel(p));
                tile(n, x + r * w.inputs, w.inputs, panel, COLUMNS, w.steps, sums, COLUMNS);
                finish_float(w, p, sums, n, to, column);
            }
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
    const Part end = all(GeluTable::kEnd), pieces = all((GeluTable::kPieces - 1) / GeluTable::kEnd);
    for (int64_t i = 0; i < n; i += LANES) {
        const Vector v = load(x + i), size = magnitude(v);
        store(x + i, each([&](int p) {
            const Part at = smaller(size.part[p], end) * pieces;
            Bits piece;
            const Part t = at - rounded(at, piece);
            Part y = lookup(table.coefficient[GeluTable::kDegree], piece);
            for (int d = GeluTable::kDegree - 1; d >= 0; --d) y = fma(y, t, lookup(table.coefficient[d], piece));
            return larger(all(0.0f), v.part[p]) - y;  // in this order a NaN stays
        }));
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
        Vector sum = zero(), squares = zero();
        for (int64_t i = 0; i < stride; i += LANES) sum = sum + first(load(x + i), lanes_at(i, size));
        const Vector mean = splat(sum_of(sum) / size);
        for (int64_t i = 0; i < stride; i += LANES) {
            const Vector v = first(load(x + i) - mean, lanes_at(i, size));
            squares = fma(v, v, squares);
        }
        const Vector inverse = splat(1 / std::sqrt(sum_of(squares) / size + epsilon));
        for (int64_t i = 0; i < stride; i += LANES) {
            const Vector y = fma((load(x + i) - mean) * inverse, load(weight.get() + i), load(bias.get() + i));
            store(x + i, first(y, lanes_at(i, size)));
        }
    }
};

Norm make_norm(const float* weight, const float* bias, int64_t size, float epsilon) {
    Norm norm;
    norm.size = size;
    norm.epsilon = epsilon;
    norm.weight.zeros(round_up(size, COLUMNS));
    norm.bias.zeros(round_up(size, COLUMNS));
    std::copy(weight, weight + size, norm.weight.get());
    std::copy(bias, bias + size, norm.bias.get());
    return norm;
}

// ---- attention ----------------------------------------------------------------------------------------------------

// 2^x for x <= 0, to about 1e-7 and not below 2^-126: the rounded part by its bits, the rest, in [-0.5, 0.5], by its
// Taylor series. A NaN stays a NaN.
INLINE Part exp2_of(Part x) {
    x = larger(all(-126.0f), x);
    Bits n;
    const Part t = x - rounded(x, n);
    Part y = all(1.5403530393381609e-4f);
    for (float factor : {1.3333558146428443e-3f, 9.6181291076284772e-3f, 5.5504108664821580e-2f, 2.4022650695910071e-1f,
                         6.9314718055994531e-1f, 1.0f})
        y = fma(y, t, all(factor));
    return y * power_of_two(n);
}
INLINE Vector exp2_of(Vector x) {
    return each([&](int p) { return exp2_of(x.part[p]); });
}

// s[0..n) becomes 2^(s - max), with zeros up to the next 16; returns 1 / their sum.
float softmax_row(float* s, int64_t n) {
    Vector tops = splat(s[0]), sum = zero();
    for (int64_t i = 0; i + LANES <= n; i += LANES) tops = larger(load(s + i), tops);
    float top = largest_of(tops);
    for (int64_t i = n / LANES * LANES; i < n; ++i) top = std::max(top, s[i]);
    for (int64_t i = 0; i < n; i += LANES) {
        const Vector e = first(exp2_of(load(s + i) - splat(top)), lanes_at(i, n));
        store(s + i, e);
        sum = sum + e;
    }
    return 1 / sum_of(sum);
}

// keys [n, width] into panels of 32 keys: [n / 32][width][32], zeros behind the last key.
void pack_keys(const float* keys, int64_t n, int64_t width, float* panels) {
    for (int64_t j = 0; j < round_up(n, COLUMNS); j += 16) {
        const int rows = static_cast<int>(std::clamp<int64_t>(n - j, 0, 16));
        float* panel = panels + j / COLUMNS * COLUMNS * width + j % COLUMNS;
        for (int64_t d = 0; d < width; d += 16) transpose(keys + j * width + d, width, rows, panel + d * COLUMNS, COLUMNS);
    }
}

struct AttentionScratch {
    Aligned<float> keys, scores;
};

// One head of one document. q [nq, width], k and v [n, width] contiguous; out [nq, ldo], columns [0, width).
void attend(const float* q, int64_t nq, const float* k, const float* v, int64_t n, int64_t width, float* out, int64_t ldo,
            AttentionScratch& scratch) {
    const int64_t padded = round_up(n, COLUMNS);
    scratch.keys.grow(padded * width);
    scratch.scores.grow(TILE_ROWS * padded);
    float *keys = scratch.keys.get(), *scores = scratch.scores.get();
    pack_keys(k, n, width, keys);
    for (int64_t r = 0; r < nq; r += TILE_ROWS) {
        const int rows = static_cast<int>(std::min<int64_t>(TILE_ROWS, nq - r));
        for (int64_t j = 0; j < padded; j += COLUMNS)
            tile(rows, q + r * width, width, keys + j * width, COLUMNS, width, scores + j, padded);
        float inverse[TILE_ROWS];
        for (int i = 0; i < rows; ++i) inverse[i] = softmax_row(scores + i * padded, n);
        for (int64_t d = 0; d < width; d += COLUMNS) tile(rows, scores, padded, v + d, width, n, out + r * ldo + d, ldo);
        for (int i = 0; i < rows; ++i) {
            float* row = out + (r + i) * ldo;
            for (int64_t d = 0; d < width; d += LANES) store(row + d, load(row + d) * inverse[i]);
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

    // x [rows, n], n a multiple of COLUMNS.
    void note(const float* x, int64_t rows, int64_t n) {
        if (!largest) return;
        for (int64_t r = 0; r < rows; ++r, x += n)
            for (int64_t i = 0; i < n; i += LANES)
                store(largest + i, larger(magnitude(load(x + i)), load(largest + i)));
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
        stride = round_up(h, COLUMNS);
        width = round_up(h / s.heads, COLUMNS);
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
            if (largest) largest += round_up(k, COLUMNS);
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
        const int64_t e = shape.embedding, ld = round_up(e, COLUMNS);
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
        const int64_t asking = first_only ? sequences : tokens, group = width / COLUMNS;
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
        linear(w.context.get(), w.quantised, asking, layer.out, {rows, stride, COLUMNS, 1, true});
        for (int64_t r = 0; r < asking; ++r) layer.attention_norm.row(rows + r * stride, stride);
    }

    void feed_forward(const Layer& layer, float* rows, int64_t count, Workspace& w) const {
        const int64_t wide = layer.up.outputs;
        w.wide.grow(count * wide);
        w.note(rows, count, stride);
        linear(rows, w.quantised, count, layer.up, {w.wide.get(), wide});
        for (int64_t i = 0; i < count; ++i) activate_row(w.wide.get() + i * wide, wide, shape.activation);
        w.note(w.wide.get(), count, wide);
        linear(w.wide.get(), w.quantised, count, layer.down, {rows, stride, COLUMNS, 1, true});
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

// First sequence of each group, and the end. Groups hold up to kGroupTokens; of several threads, the last ones hold fewer,
// so that none is idle for long while another, which may have been held up, is in the last of them.
std::vector<int64_t> make_groups(const int64_t* offsets, int64_t sequences, int threads) {
    const int64_t most = std::clamp<int64_t>((offsets[sequences] - offsets[0]) / std::max(1, threads), 1, kGroupTokens);
    const auto budget = [&](int64_t left) {
        return threads > 1 && left < 2 * threads * most ? std::max<int64_t>(1, most / 2) : most;
    };
    std::vector<int64_t> groups{0};
    for (int64_t s = 1; s < sequences; ++s)
        if (offsets[s + 1] - offsets[groups.back()] > budget(offsets[sequences] - offsets[groups.back()]))
            groups.push_back(s);
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
    } catch (const std::exception&) {
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
    try {
        const std::vector<int64_t> groups = make_groups(offsets, sequences, threads);
        std::mutex noting;
        return !share_out(static_cast<int64_t>(groups.size()) - 1, threads, 1, [&](int64_t g) {
            auto workspace = encoder->borrow();
            std::vector<float> seen(largest ? encoder->input_count() : 0);
            workspace->largest = largest ? seen.data() : nullptr;
            encoder->group(ids, places, offsets, groups[g], groups[g + 1], logits, *workspace);
            encoder->give_back(std::move(workspace));
            std::lock_guard<std::mutex> lock(noting);
            for (size_t i = 0; i < seen.size(); ++i) largest[i] = std::max(largest[i], seen[i]);
        });
    } catch (const std::exception&) {
        return 1;
    }
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
    } catch (const std::exception&) {
        return 1;
    }
}
}
