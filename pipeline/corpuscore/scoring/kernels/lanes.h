// Sixteen floats at a time on every CPU: one register of AVX-512, two of AVX2, four of anything else.
//
// A kernel is written once, for Vector, and compiled once for each level that it names; see levels.py. What is
// summed, and in which order, does not depend on the level. Multiply-adds are written out (fma), and the compiler makes
// none of its own, so that AVX-512 and AVX2 give the same bits; the plain level rounds a product before it is added.
//
// NaN: `larger` and `smaller` return their second argument where one of both is NaN, as the instructions do.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace lanes {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;        // floats in a register
constexpr int TILE_ROWS = 12;    // of a register tile: 24 of 32 registers accumulate,
constexpr int TILE_VECTORS = 2;  // which is so many vectors wide
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int WIDTH = 8;
constexpr int TILE_ROWS = 6;  // 12 of 16
constexpr int TILE_VECTORS = 1;
#else
constexpr int WIDTH = 4;
constexpr int TILE_ROWS = 2;  // 8 of 16
constexpr int TILE_VECTORS = 1;
#endif
constexpr int LANES = 16;            // floats in a vector
constexpr int PARTS = LANES / WIDTH; // registers in a vector
constexpr int COLUMNS = 2 * LANES;   // of a panel of weights; panels are the same at every level

typedef float Part __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Whole __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t Bits __attribute__((vector_size(WIDTH * 4)));

struct Vector {
    Part part[PARTS];
};

// ---- one register -------------------------------------------------------------------------------------------------

INLINE Part all(float value) { return value - Part{}; }

INLINE Bits bits_of(Part x) {
    Bits bits;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

INLINE Part float_of(Bits bits) {
    Part x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

#if defined(__AVX512F__)
INLINE Part fma(Part a, Part b, Part c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Part larger(Part a, Part b) { return _mm512_max_ps(a, b); }
INLINE Part smaller(Part a, Part b) { return _mm512_min_ps(a, b); }
// table[index mod 32] of 32 floats
INLINE Part lookup(const float* table, Bits index) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(table), (__m512i)index, _mm512_loadu_ps(table + 16));
}
#elif defined(__AVX2__) && defined(__FMA__)
INLINE Part fma(Part a, Part b, Part c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Part larger(Part a, Part b) { return _mm256_max_ps(a, b); }
INLINE Part smaller(Part a, Part b) { return _mm256_min_ps(a, b); }
INLINE Part lookup(const float* table, Bits index) { return _mm256_i32gather_ps(table, (__m256i)(index & 31), 4); }
#else
INLINE Part fma(Part a, Part b, Part c) { return a * b + c; }
INLINE Part larger(Part a, Part b) { return a > b ? a : b; }
INLINE Part smaller(Part a, Part b) { return a < b ? a : b; }
INLINE Part lookup(const float* table, Bits index) {
    Part found;
    for (int i = 0; i < WIDTH; i++) found[i] = table[index[i] & 31];
    return found;
}
#endif

// ---- sixteen floats -----------------------------------------------------------------------------------------------

template <typename Function>
INLINE Vector each(const Function& function) {
    Vector result;
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; p++) result.part[p] = function(p);
    return result;
}

INLINE Vector splat(float value) {
    return each([=](int) { return all(value); });
}
INLINE Vector zero() { return splat(0.0f); }

INLINE Vector operator+(Vector a, Vector b) {
    return each([&](int p) { return a.part[p] + b.part[p]; });
}
INLINE Vector operator-(Vector a, Vector b) {
    return each([&](int p) { return a.part[p] - b.part[p]; });
}
INLINE Vector operator*(Vector a, Vector b) {
    return each([&](int p) { return a.part[p] * b.part[p]; });
}
INLINE Vector operator*(Vector a, float b) { return a * splat(b); }
INLINE Vector operator-(float a, Vector b) { return splat(a) - b; }
INLINE Vector operator/(float a, Vector b) {
    return each([&](int p) { return all(a) / b.part[p]; });
}
INLINE Vector fma(Vector a, Vector b, Vector c) {
    return each([&](int p) { return fma(a.part[p], b.part[p], c.part[p]); });
}
INLINE Vector larger(Vector a, Vector b) {
    return each([&](int p) { return larger(a.part[p], b.part[p]); });
}
INLINE Vector smaller(Vector a, Vector b) {
    return each([&](int p) { return smaller(a.part[p], b.part[p]); });
}
INLINE Vector magnitude(Vector a) {
    return each([&](int p) { return float_of(bits_of(a.part[p]) & 0x7fffffffu); });
}

// Part by part: copied as one, a vector would go through memory.
INLINE Vector load(const float* from) {
    return each([=](int p) {
        Part part;
        std::memcpy(&part, from + p * WIDTH, sizeof part);
        return part;
    });
}
INLINE void store(float* to, Vector value) {
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; p++) std::memcpy(to + p * WIDTH, &value.part[p], sizeof value.part[p]);
}

// The first `count` floats, and zeros; nothing behind them is read or written.
INLINE Vector load(const float* from, int count) {
    if (count == LANES) return load(from);
    float lane[LANES] = {};
    if (count > 0) std::memcpy(lane, from, count * sizeof(float));
    return load(lane);
}
INLINE void store(float* to, Vector value, int count) {
    if (count == LANES) return store(to, value);
    float lane[LANES];
    store(lane, value);
    if (count > 0) std::memcpy(to, lane, count * sizeof(float));
}

// The first `count` floats as they are, zeros behind.
INLINE Vector first(Vector value, int count) {
    if (count == LANES) return value;
    float lane[LANES] = {};
    store(lane, value, count);
    return load(lane);
}

// How many of n elements are in the vector that starts at i.
INLINE int lanes_at(int64_t i, int64_t n) { return n - i < LANES ? (n > i ? (int)(n - i) : 0) : LANES; }

// One number of sixteen: halves on halves, so that the order is the same at every level.
template <typename Combine>
INLINE float folded(Vector x, const Combine& combine) {
    float lane[LANES];
    store(lane, x);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = combine(lane[i], lane[i + half]);
    return lane[0];
}
INLINE float sum_of(Vector x) {
    return folded(x, [](float a, float b) { return a + b; });
}
INLINE float largest_of(Vector x) {
    return folded(x, [](float a, float b) { return a > b ? a : b; });
}
INLINE float smallest_of(Vector x) {
    return folded(x, [](float a, float b) { return a < b ? a : b; });
}

// 2^n of whole numbers -126..127 that lie in the low bits, as `rounded` leaves them.
INLINE Part power_of_two(Bits n) { return float_of((n + 127) << 23); }

// x rounded to a whole number of at most 22 bits, which then stands in the low bits too.
constexpr float SHIFT = 12582912.0f;  // 1.5 * 2^23
INLINE Part rounded(Part x, Bits& whole) {
    const Part shifted = x + SHIFT;
    whole = bits_of(shifted);
    return shifted - SHIFT;
}

// ---- the register tile --------------------------------------------------------------------------------------------

// What a tile does in one step: 4 bytes of a row times 128 bytes of a panel, onto 32 sums. Here: one float, 32 floats.
struct MultiplyAdd {
    typedef Part Sum;
    static INLINE Sum spread(const char* a) {
        float x;
        std::memcpy(&x, a, sizeof x);
        return all(x);
    }
    static INLINE Sum add(Sum x, Sum weight, Sum sum) { return fma(x, weight, sum); }
};

// out[r, 0..32) = sum over steps of a[r, step] * b[step, 0..32), for R rows. Strides in bytes.
template <typename Step, int R>
INLINE void tile_of(const char* a, int64_t lda, const char* b, int64_t ldb, int64_t steps, char* out, int64_t ldo) {
    typedef typename Step::Sum Sum;
    constexpr int WIDE = TILE_VECTORS * PARTS, BYTES = sizeof(Sum);
    for (int column = 0; column < COLUMNS * 4; column += WIDE * BYTES, b += WIDE * BYTES) {
        Sum sum[R][WIDE] = {};
        const char *left = a, *right = b;
        for (int64_t i = 0; i < steps; i++, left += 4, right += ldb) {
            Sum weight[WIDE];
            for (int w = 0; w < WIDE; w++) std::memcpy(&weight[w], right + w * BYTES, BYTES);
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                const Sum x = Step::spread(left + r * lda);
#pragma GCC unroll 4
                for (int w = 0; w < WIDE; w++) sum[r][w] = Step::add(x, weight[w], sum[r][w]);
            }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int w = 0; w < WIDE; w++) std::memcpy(out + r * ldo + column + w * BYTES, &sum[r][w], BYTES);
    }
}

// The same for 1 to TILE_ROWS rows.
template <typename Step, int R = TILE_ROWS>
void tile(int rows, const char* a, int64_t lda, const char* b, int64_t ldb, int64_t steps, char* out, int64_t ldo) {
    if constexpr (R > 1)
        if (rows < R) return tile<Step, R - 1>(rows, a, lda, b, ldb, steps, out, ldo);
    tile_of<Step, R>(a, lda, b, ldb, steps, out, ldo);
}

// Of floats, strides in floats.
inline void tile(int rows, const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, float* out, int64_t ldo) {
    tile<MultiplyAdd>(rows, (const char*)a, lda * 4, (const char*)b, ldb * 4, k, (char*)out, ldo * 4);
}

// ---- a square of sixteen rows -------------------------------------------------------------------------------------

#if defined(__AVX512F__)
INLINE __m512 low_pairs(__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
INLINE __m512 high_pairs(__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

// to[j, i] = from[i, j] for 16 columns j and as many rows i; zeros behind the last row.
inline void transpose(const float* from, int64_t ld, int rows, float* to, int64_t ldt) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = i < rows ? _mm512_loadu_ps(from + i * ld) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = low_pairs(t[i], t[i + 2]), r[i + 1] = high_pairs(t[i], t[i + 2]);
        r[i + 2] = low_pairs(t[i + 1], t[i + 3]), r[i + 3] = high_pairs(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {  // r[4g + i] holds column 4q + i of rows 4g..4g+3 in its quarter q
        const __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        const __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        _mm512_storeu_ps(to + i * ldt, _mm512_shuffle_f32x4(a, c, 0x88));
        _mm512_storeu_ps(to + (4 + i) * ldt, _mm512_shuffle_f32x4(b, d, 0x88));
        _mm512_storeu_ps(to + (8 + i) * ldt, _mm512_shuffle_f32x4(a, c, 0xdd));
        _mm512_storeu_ps(to + (12 + i) * ldt, _mm512_shuffle_f32x4(b, d, 0xdd));
    }
}
#elif defined(__AVX2__) && defined(__FMA__)
INLINE void transpose_eight(const float* from, int64_t ld, int rows, float* to, int64_t ldt) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = i < rows ? _mm256_loadu_ps(from + i * ld) : _mm256_setzero_ps();
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {  // r[4g + i] holds column 4h + i of rows 4g..4g+3 in its half h
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44), r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44), r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * ldt, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (4 + i) * ldt, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

inline void transpose(const float* from, int64_t ld, int rows, float* to, int64_t ldt) {
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 16; j += 8) transpose_eight(from + i * ld + j, ld, rows - i, to + j * ldt + i, ldt);
}
#else
inline void transpose(const float* from, int64_t ld, int rows, float* to, int64_t ldt) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) to[j * ldt + i] = i < rows ? from[i * ld + j] : 0.0f;
}
#endif

}  // namespace lanes
