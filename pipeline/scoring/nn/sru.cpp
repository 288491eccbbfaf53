// The SRU recurrence on packed documents, forward and backward, fp32.
//
// Specification: `reference` in sru.py. Tokens of all documents lie end to end; offsets mark where each starts, and
// the state restarts there. Matrices of U are planar: row t holds [candidate C | forget C | reset C (| skip C)].
//
// One task is one document, one direction and one block of channels; a block is held in registers while time runs.
// Nothing is summed across tasks, so results depend on neither the batch-mates nor the number of threads.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

// One body for every x86-64: the loader takes the clone that fits the machine. Elsewhere the compiler's default is used.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default"), flatten))
#else
#define EACH_CPU
#endif

namespace {

constexpr int LANES = 16;        // floats in a vector: one AVX-512 register, two of AVX2, four of SSE or NEON
constexpr int VECTORS = 4;       // vectors in a block: independent chains that hide the latency of the gates
constexpr int BLOCK = LANES * VECTORS;

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Integers __attribute__((vector_size(LANES * sizeof(float))));

inline Vector splat(float value) { return value - Vector{}; }

inline Vector load(const float* from, int lanes) {
    Vector value = {};
    if (lanes == LANES) std::memcpy(&value, from, sizeof value);
    else if (lanes > 0) std::memcpy(&value, from, lanes * sizeof(float));
    return value;
}

inline void store(float* to, Vector value, int lanes) {
    if (lanes == LANES) std::memcpy(to, &value, sizeof value);
    else if (lanes > 0) std::memcpy(to, &value, lanes * sizeof(float));
}

inline Vector clamp(Vector x, float low, float high) {
    x = x < low ? splat(low) : x;  // a NaN fails both comparisons and stays a NaN
    return x > high ? splat(high) : x;
}

// exp(x) = 2^n * exp(r), r = x - n ln 2 in two parts (Cody and Waite), exp(r) by its Taylor polynomial; error < 2 ulp.
inline Vector exponential(Vector x) {
    x = clamp(x, -87.0f, 88.0f);
    Integers n = __builtin_convertvector(x * 1.44269504f + 128.5f, Integers) - 128;  // positive: truncation rounds
    Vector whole = __builtin_convertvector(n, Vector);
    Vector r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Vector p = splat(1.0f / 5040);
    for (float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * r + factor;
    Integers bits = (n + 127) << 23;
    Vector power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

inline Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

// What both directions of the computation take; see the exported functions for shapes.
struct Inputs {
    const float *u, *x;
    float scale;
    const float *weight, *bias, *start, *keep;
    const int64_t* offsets;
    int64_t documents, hidden, directions, matrices;

    int64_t channels() const { return hidden * directions; }
    int64_t blocks() const { return (hidden + BLOCK - 1) / BLOCK; }
    int64_t tasks() const { return documents * directions * blocks(); }

    // The skip input of a token: the fourth matrix, scale * x, or nothing.
    Vector skip(const float* u_row, int64_t token, int64_t channel, int lanes) const {
        if (matrices == 4) return load(u_row + 3 * channels(), lanes);
        if (x) return load(x + token * channels() + channel, lanes) * scale;
        return Vector{};
    }
};

// Where one task works: a document, a direction, a block of channels.
struct Task {
    int64_t document, channel, first, step, length;
    int lanes[VECTORS];

    Task(const Inputs& in, int64_t index) {
        const int64_t block = index % in.blocks(), direction = index / in.blocks() % in.directions;
        document = index / in.blocks() / in.directions;
        channel = direction * in.hidden + block * BLOCK;
        length = in.offsets[document + 1] - in.offsets[document];
        first = direction ? in.offsets[document + 1] - 1 : in.offsets[document];
        step = direction ? -1 : 1;
        for (int i = 0; i < VECTORS; i++)
            lanes[i] = (int)std::clamp<int64_t>(in.hidden - block * BLOCK - i * LANES, 0, LANES);
    }
    int64_t token(int64_t t) const { return first + t * step; }
};

EACH_CPU void forward(const Inputs& in, float* h, float* c, float* last, int64_t index) {
    const Task task(in, index);
    const int64_t C = in.channels();
    Vector state[VECTORS], forget_v[VECTORS], reset_v[VECTORS], forget_b[VECTORS], reset_b[VECTORS], mask[VECTORS];
    for (int i = 0; i < VECTORS; i++) {
        const int n = task.lanes[i];
        const int64_t j = task.channel + i * LANES, in_document = task.document * C + j;
        state[i] = in.start ? load(in.start + in_document, n) : Vector{};
        mask[i] = in.keep ? load(in.keep + in_document, n) : splat(1.0f);
        forget_v[i] = load(in.weight + j, n), reset_v[i] = load(in.weight + C + j, n);
        forget_b[i] = load(in.bias + j, n), reset_b[i] = load(in.bias + C + j, n);
    }
    for (int64_t t = 0; t < task.length; t++) {
        const int64_t token = task.token(t);
        for (int i = 0; i < VECTORS && task.lanes[i]; i++) {
            const int n = task.lanes[i];
            const int64_t j = task.channel + i * LANES;
            const float* row = in.u + token * in.matrices * C + j;
            const Vector candidate = load(row, n), input = in.skip(row, token, j, n);
            const Vector f = sigmoid(load(row + C, n) + forget_v[i] * state[i] + forget_b[i]);
            const Vector r = sigmoid(load(row + 2 * C, n) + reset_v[i] * state[i] + reset_b[i]);
            state[i] = candidate + (state[i] - candidate) * f;
            store(h + token * C + j, input + (state[i] - input) * (mask[i] * r), n);
            if (c) store(c + token * C + j, state[i], n);
        }
    }
    for (int i = 0; i < VECTORS; i++) store(last + task.document * C + task.channel + i * LANES, state[i], task.lanes[i]);
}

// The chain rule, from the last step of a task to its first; the gates are computed again from c.
EACH_CPU void backward(const Inputs& in, const float* c, const float* dh, const float* dlast, float* du, float* dx,
                       float* dparameters, float* dstart, int64_t index) {
    const Task task(in, index);
    const int64_t C = in.channels();
    for (int i = 0; i < VECTORS && task.lanes[i]; i++) {
        const int n = task.lanes[i];
        const int64_t j = task.channel + i * LANES, in_document = task.document * C + j;
        const Vector initial = in.start ? load(in.start + in_document, n) : Vector{};
        const Vector mask = in.keep ? load(in.keep + in_document, n) : splat(1.0f);
        const Vector forget_v = load(in.weight + j, n), reset_v = load(in.weight + C + j, n);
        const Vector forget_b = load(in.bias + j, n), reset_b = load(in.bias + C + j, n);
        Vector dstate = load(dlast + in_document, n), total[4] = {};
        for (int64_t t = task.length - 1; t >= 0; t--) {
            const int64_t token = task.token(t);
            const float* row = in.u + token * in.matrices * C + j;
            float* drow = du + token * in.matrices * C + j;
            const Vector before = t ? load(c + task.token(t - 1) * C + j, n) : initial;
            const Vector state = load(c + token * C + j, n), grad = load(dh + token * C + j, n);
            const Vector candidate = load(row, n), input = in.skip(row, token, j, n);
            const Vector f = sigmoid(load(row + C, n) + forget_v * before + forget_b);
            const Vector r = sigmoid(load(row + 2 * C, n) + reset_v * before + reset_b);
            const Vector dreset = grad * mask * (state - input) * r * (1.0f - r);
            const Vector dinput = grad * (1.0f - mask * r);
            dstate += grad * mask * r;
            const Vector dforget = dstate * (before - candidate) * f * (1.0f - f);
            store(drow, dstate * (1.0f - f), n);
            store(drow + C, dforget, n);
            store(drow + 2 * C, dreset, n);
            if (in.matrices == 4) store(drow + 3 * C, dinput, n);
            if (dx) store(dx + token * C + j, dinput * in.scale, n);
            total[0] += dforget * before, total[1] += dreset * before;
            total[2] += dforget, total[3] += dreset;
            dstate = dstate * f + dforget * forget_v + dreset * reset_v;
        }
        for (int k = 0; k < 4; k++) store(dparameters + (task.document * 4 + k) * C + j, total[k], n);
        store(dstart + in_document, dstate, n);
    }
}

// Runs body(index) for every index below count, on the calling thread and on up to threads - 1 more.
template <typename Body>
void share_out(int64_t count, int threads, const Body& body) {
    constexpr int64_t GRAIN = 16;
    std::atomic<int64_t> next{0};
    const auto work = [&] {
        for (int64_t first; (first = next.fetch_add(GRAIN)) < count;)
            for (int64_t index = first; index < std::min(first + GRAIN, count); index++) body(index);
    };
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < std::min<int64_t>(threads, (count + GRAIN - 1) / GRAIN); i++) others.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads to be had: fewer do the work
    }
    work();
    for (std::thread& thread : others) thread.join();
}

}  // namespace

extern "C" {

// Args: u [T, matrices, C]; x [T, C] or null; weight, bias [2, C] (forget, reset); start [D, C] or null; keep [D, C]
// (dropout of the output) or null; offsets [D + 1]; C = directions * hidden.
// Out: h [T, C]; c [T, C] or null; last [D, C].
void sru_forward(const float* u, const float* x, float scale, const float* weight, const float* bias,
                 const float* start, const float* keep, const int64_t* offsets, int64_t documents, int64_t hidden,
                 int64_t directions, int64_t matrices, float* h, float* c, float* last, int threads) {
    const Inputs in{u, x, scale, weight, bias, start, keep, offsets, documents, hidden, directions, matrices};
    share_out(in.tasks(), threads, [&](int64_t index) { forward(in, h, c, last, index); });
}

// The gradients of sru_forward. Args: its inputs, c as it was put out, dh [T, C] and dlast [D, C].
// Out: du as u; dx as x or null; dparameters [D, 4, C], a document's share of dweight and dbias; dstart [D, C].
void sru_backward(const float* u, const float* x, float scale, const float* weight, const float* bias,
                  const float* start, const float* keep, const int64_t* offsets, int64_t documents, int64_t hidden,
                  int64_t directions, int64_t matrices, const float* c, const float* dh, const float* dlast, float* du,
                  float* dx, float* dparameters, float* dstart, int threads) {
    const Inputs in{u, x, scale, weight, bias, start, keep, offsets, documents, hidden, directions, matrices};
    share_out(in.tasks(), threads,
              [&](int64_t index) { backward(in, c, dh, dlast, du, dx, dparameters, dstart, index); });
}

}  // extern "C"
