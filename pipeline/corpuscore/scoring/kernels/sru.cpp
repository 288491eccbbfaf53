// Levels: avx512 avx2 plain
//
// SRU and SRU++ on packed documents, fp32: the recurrence forward and backward, and a whole classifier forward.
//
// Specification: `reference` in srupp/recurrence/gates.py and srupp/layers.py. Tokens of all documents lie end to end;
// offsets mark where each starts, and the state restarts there. U is planar: row t is [candidate C | forget C | reset C
// (| skip C)].
//
//   recurrence  one task is one document, one direction and one block of channels; a block stays in registers while
//               time runs. Nothing is summed across tasks.
//   classifier  documents go in groups of about a hundred tokens; a thread takes a group through the whole network, so
//               that activations stay in its cache and threads never wait for each other.
//
// An element is always summed in the same order, whatever its group: a document's results are the same bits with any
// neighbours and any number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <vector>

#include "lanes.h"
#include "sharing.h"

using namespace lanes;

namespace {

constexpr int VECTORS = WIDTH == LANES ? 4 : 1;  // in a block: chains that hide the latency of the gates, in registers
constexpr int BLOCK = LANES * VECTORS;

// exp(x) = 2^n * exp(r), r = x - n ln 2 in two parts (Cody and Waite), exp(r) by its Taylor polynomial; error < 2 ulp.
INLINE Part exponential(Part x) {
    x = smaller(all(88.0f), larger(all(-87.0f), x));  // a NaN stays a NaN
    Bits n;
    const Part whole = rounded(x * 1.44269504f, n);
    const Part r = fma(whole, all(2.12194440e-4f), fma(whole, all(-0.693359375f), x));
    Part p = all(1.0f / 5040);
    for (float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = fma(p, r, all(factor));
    return p * power_of_two(n);
}
INLINE Vector exponential(Vector x) {
    return each([&](int p) { return exponential(x.part[p]); });
}

INLINE Vector sigmoid(Vector x) { return 1.0f / (splat(1.0f) + exponential(0.0f - x)); }

// What both directions of the computation take; see the exported functions for shapes.
struct Inputs {
    const float *u, *x;
    float scale;
    const float *weight, *bias, *start, *keep;
    const int64_t* offsets;
    int64_t documents, hidden, directions, matrices;
    int64_t row;  // floats from one row of h, or one matrix of U, to the next: hidden * directions, or more

    int64_t blocks() const { return (hidden + BLOCK - 1) / BLOCK; }
    int64_t tasks() const { return documents * directions * blocks(); }

    // The skip input of a token: the fourth matrix, scale * x, or nothing.
    Vector skip(const float* u_row, int64_t token, int64_t channel, int lanes) const {
        if (matrices == 4) return load(u_row + 3 * row, lanes);
        if (x) return load(x + token * row + channel, lanes) * scale;
        return zero();
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

// WHOLE: every vector of the block is full, which the compiler then knows.
template <bool WHOLE>
INLINE void forward_block(const Inputs& in, const Task& task, float* h, float* c, float* last) {
    const int64_t C = in.row;
    Vector state[VECTORS], forget_v[VECTORS], reset_v[VECTORS], forget_b[VECTORS], reset_b[VECTORS], mask[VECTORS];
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) {
        const int n = WHOLE ? LANES : task.lanes[i];
        const int64_t j = task.channel + i * LANES, in_document = task.document * C + j;
        state[i] = in.start ? load(in.start + in_document, n) : zero();
        mask[i] = in.keep ? load(in.keep + in_document, n) : splat(1.0f);
        forget_v[i] = load(in.weight + j, n), reset_v[i] = load(in.weight + C + j, n);
        forget_b[i] = load(in.bias + j, n), reset_b[i] = load(in.bias + C + j, n);
    }
    for (int64_t t = 0; t < task.length; t++) {
        const int64_t token = task.token(t);
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            const int n = WHOLE ? LANES : task.lanes[i];
            const int64_t j = task.channel + i * LANES;
            const float* row = in.u + token * in.matrices * C + j;
            const Vector candidate = load(row, n), input = in.skip(row, token, j, n);
            const Vector f = sigmoid(fma(forget_v[i], state[i], load(row + C, n) + forget_b[i]));
            const Vector r = sigmoid(fma(reset_v[i], state[i], load(row + 2 * C, n) + reset_b[i]));
            state[i] = fma(state[i] - candidate, f, candidate);
            store(h + token * C + j, fma(state[i] - input, mask[i] * r, input), n);
            if (c) store(c + token * C + j, state[i], n);
        }
    }
    for (int i = 0; last && i < VECTORS; i++)
        store(last + task.document * C + task.channel + i * LANES, state[i], WHOLE ? LANES : task.lanes[i]);
}

void forward(const Inputs& in, float* h, float* c, float* last, int64_t index) {
    const Task task(in, index);
    if (task.lanes[VECTORS - 1] == LANES) forward_block<true>(in, task, h, c, last);
    else forward_block<false>(in, task, h, c, last);
}

// The chain rule, from the last step of a task to its first; the gates are computed again from c.
template <bool WHOLE>
INLINE void backward_block(const Inputs& in, const Task& task, const float* c, const float* dh, const float* dlast,
                           float* du, float* dx, float* dparameters, float* dstart) {
    const int64_t C = in.row;
    for (int i = 0; i < VECTORS; i++) {
        const int n = WHOLE ? LANES : task.lanes[i];
        const int64_t j = task.channel + i * LANES, in_document = task.document * C + j;
        const Vector initial = in.start ? load(in.start + in_document, n) : zero();
        const Vector mask = in.keep ? load(in.keep + in_document, n) : splat(1.0f);
        const Vector forget_v = load(in.weight + j, n), reset_v = load(in.weight + C + j, n);
        const Vector forget_b = load(in.bias + j, n), reset_b = load(in.bias + C + j, n);
        Vector dstate = load(dlast + in_document, n), total[4] = {zero(), zero(), zero(), zero()};
        for (int64_t t = task.length - 1; t >= 0; t--) {
            const int64_t token = task.token(t);
            const float* row = in.u + token * in.matrices * C + j;
            float* drow = du + token * in.matrices * C + j;
            const Vector before = t ? load(c + task.token(t - 1) * C + j, n) : initial;
            const Vector state = load(c + token * C + j, n), grad = load(dh + token * C + j, n);
            const Vector candidate = load(row, n), input = in.skip(row, token, j, n);
            const Vector f = sigmoid(fma(forget_v, before, load(row + C, n) + forget_b));
            const Vector r = sigmoid(fma(reset_v, before, load(row + 2 * C, n) + reset_b));
            const Vector dreset = grad * mask * (state - input) * r * (1.0f - r);
            const Vector dinput = grad * (1.0f - mask * r);
            dstate = fma(grad * mask, r, dstate);
            const Vector dforget = dstate * (before - candidate) * f * (1.0f - f);
            store(drow, dstate * (1.0f - f), n);
            store(drow + C, dforget, n);
            store(drow + 2 * C, dreset, n);
            if (in.matrices == 4) store(drow + 3 * C, dinput, n);
            if (dx) store(dx + token * C + j, dinput * in.scale, n);
            total[0] = fma(dforget, before, total[0]), total[1] = fma(dreset, before, total[1]);
            total[2] = total[2] + dforget, total[3] = total[3] + dreset;
            dstate = fma(dreset, reset_v, fma(dforget, forget_v, dstate * f));
        }
        for (int k = 0; k < 4; k++) store(dparameters + (task.document * 4 + k) * C + j, total[k], n);
        store(dstart + in_document, dstate, n);
    }
}

void backward(const Inputs& in, const float* c, const float* dh, const float* dlast, float* du, float* dx,
                       float* dparameters, float* dstart, int64_t index) {
    const Task task(in, index);
    if (task.lanes[VECTORS - 1] == LANES) backward_block<true>(in, task, c, dh, dlast, du, dx, dparameters, dstart);
    else backward_block<false>(in, task, c, dh, dlast, du, dx, dparameters, dstart);
}

// ---- the classifier -----------------------------------------------------------------------------------------------

constexpr int64_t GROUP = 128;  // tokens after which a group is closed

int64_t padded(int64_t n) { return (n + COLUMNS - 1) / COLUMNS * COLUMNS; }

// out [rows, padded(n)] = a [rows, k] * weight, which lies in panels [padded(n) / 32, k, 32] with zeros behind column n.
void product(const float* a, int64_t lda, int64_t rows, const float* weight, int64_t k, int64_t n, float* out) {
    const int64_t ldo = padded(n);
    for (int64_t c = 0; c < ldo; c += COLUMNS)
        for (int64_t r = 0; r < rows; r += TILE_ROWS)
            tile((int)std::min<int64_t>(TILE_ROWS, rows - r), a + r * lda, lda, weight + c * k, COLUMNS, k,
                 out + r * ldo + c, ldo);
}

// to = (from - mean) / deviation * weight + bias, over n columns.
void normalise(const float* from, int64_t n, const float* weight, const float* bias, float* to) {
    Vector sum = zero(), squares = zero();
    for (int64_t i = 0; i < n; i += LANES) sum = sum + load(from + i, lanes_at(i, n));
    const float mean = sum_of(sum) / n;
    for (int64_t i = 0; i < n; i += LANES) {
        const Vector centred = first(load(from + i, lanes_at(i, n)) - splat(mean), lanes_at(i, n));
        squares = fma(centred, centred, squares);
    }
    const float inverse = 1.0f / std::sqrt(sum_of(squares) / n + 1e-5f);
    for (int64_t i = 0; i < n; i += LANES) {
        const int lanes = lanes_at(i, n);
        const Vector centred = load(from + i, lanes) - splat(mean);
        store(to + i, fma(centred * inverse, load(weight + i, lanes), load(bias + i, lanes)), lanes);
    }
}

// row[0..n) becomes exp(scale * (row - max)), with zeros up to the next 16; returns 1 / their sum.
float softmax(float* row, int64_t n, float scale) {
    Vector tops = splat(row[0]), sum = zero();
    for (int64_t i = 0; i + LANES <= n; i += LANES) tops = larger(load(row + i), tops);
    float top = largest_of(tops);
    for (int64_t i = n / LANES * LANES; i < n; i++) top = std::max(top, row[i]);
    for (int64_t i = 0; i < n; i += LANES) {
        const int lanes = lanes_at(i, n);
        const Vector e = first(exponential((load(row + i, lanes) - splat(top)) * scale), lanes);
        store(row + i, e, lanes);
        sum = sum + e;
    }
    return 1.0f / sum_of(sum);
}

void add_scaled(float* to, const float* from, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] += factor * from[i];
}

void take_maximum(float* to, const float* from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = from[i] > to[i] || from[i] != from[i] ? from[i] : to[i];  // NaN stays
}

}  // namespace

// As in srupp/native.py. Weights of products lie in panels; a null pointer is a part that the network does not have.
struct Layer {
    const float *norm_weight, *norm_bias;              // [inputs] before, or [C] after
    const float *query, *key_value;                    // inputs -> proj, proj -> 2 proj
    const float *inner_weight, *inner_bias;            // [proj]
    const float *out, *gate_weight, *gate_bias;        // proj -> matrices * padded(C); [2, padded(C)]
    int64_t inputs, matrices, norm_after;
    float alpha, scale;
};

struct Network {
    const float *embedding, *first;                    // [vocabulary, embedding]; embedding -> C
    const float *pool_score, *head, *head_bias;        // [C]; pooled -> labels; [labels]
    const Layer* layers;
    int64_t count, embedding_size, hidden, directions, proj, heads, mean, maximum, labels;
    int64_t one_label;  // softmax over the labels; else a sigmoid each

    int64_t channels() const { return hidden * directions; }
    int64_t pooled() const { return channels() * (mean + maximum + (pool_score != nullptr)); }
};

namespace {

// Buffers of one thread; they grow to what the largest group takes, and stay.
struct Workspace {
    std::vector<float> x, normed, q, key_value, u, h, keys, scores, mixed, pooled, logits;
    static float* room(std::vector<float>& buffer, int64_t size) {
        if ((int64_t)buffer.size() < size) buffer.resize(size);
        return buffer.data();
    }
};

// q += alpha * softmax(q k' / sqrt(E)) v, for one document and one head of E columns.
void attend(float* q, int64_t ldq, const float* k, const float* v, int64_t ldkv, int64_t n, int64_t E, float alpha,
            Workspace& w) {
    const int64_t wide = padded(n);
    float *panels = Workspace::room(w.keys, wide * E), *scores = Workspace::room(w.scores, TILE_ROWS * wide);
    float* mixed = Workspace::room(w.mixed, TILE_ROWS * padded(E));
    for (int64_t j = 0; j < wide; j++)
        for (int64_t e = 0; e < E; e++)
            panels[(j / COLUMNS * E + e) * COLUMNS + j % COLUMNS] = j < n ? k[j * ldkv + e] : 0.0f;
    const float scale = 1.0f / std::sqrt((float)E);
    for (int64_t r = 0; r < n; r += TILE_ROWS) {
        const int rows = (int)std::min<int64_t>(TILE_ROWS, n - r);
        product(q + r * ldq, ldq, rows, panels, E, n, scores);
        float inverse[TILE_ROWS];
        for (int i = 0; i < rows; i++) inverse[i] = softmax(scores + i * wide, n, scale);
        for (int64_t c = 0; c < E; c += COLUMNS)
            tile(rows, scores, wide, v + c, ldkv, n, mixed + c, padded(E));
        for (int i = 0; i < rows; i++) add_scaled(q + (r + i) * ldq, mixed + i * padded(E), alpha * inverse[i], E);
    }
}

// x [T, padded(inputs)] -> h [T, padded(C)] of a group of documents.
void run_layer(const Network& net, const Layer& layer, const float* x, const int64_t* offsets, int64_t documents,
               float* h, Workspace& w) {
    const int64_t T = offsets[documents], ldx = padded(layer.inputs), P = net.proj, ldq = padded(P), ld2 = padded(2 * P);
    const int64_t C = net.channels(), ldc = padded(C), E = P / net.heads;
    const float* input = x;
    if (layer.norm_weight && !layer.norm_after) {
        float* normed = Workspace::room(w.normed, T * ldx);
        for (int64_t t = 0; t < T; t++)
            normalise(x + t * ldx, layer.inputs, layer.norm_weight, layer.norm_bias, normed + t * ldx);
        input = normed;
    }
    float* q = Workspace::room(w.q, T * ldq);
    product(input, ldx, T, layer.query, layer.inputs, P, q);
    if (layer.key_value) {
        float* kv = Workspace::room(w.key_value, T * ld2 + COLUMNS);  // a tile may read behind the last head
        product(q, ldq, T, layer.key_value, P, 2 * P, kv);
        for (int64_t d = 0; d < documents; d++)
            for (int64_t head = 0; head < P; head += E) {
                const float* k = kv + offsets[d] * ld2 + head;
                attend(q + offsets[d] * ldq + head, ldq, k, k + P, ld2, offsets[d + 1] - offsets[d], E, layer.alpha, w);
            }
    }
    if (layer.inner_weight)
        for (int64_t t = 0; t < T; t++) normalise(q + t * ldq, P, layer.inner_weight, layer.inner_bias, q + t * ldq);
    float* u = Workspace::room(w.u, T * layer.matrices * ldc);
    product(q, ldq, T, layer.out, P, layer.matrices * ldc, u);
    const Inputs in{u, layer.matrices == 3 ? x : nullptr, layer.scale, layer.gate_weight, layer.gate_bias, nullptr,
                    nullptr, offsets, documents, net.hidden, net.directions, layer.matrices, ldc};
    for (int64_t index = 0; index < in.tasks(); index++) forward(in, h, nullptr, nullptr, index);
    if (layer.norm_weight && layer.norm_after)
        for (int64_t t = 0; t < T; t++) normalise(h + t * ldc, C, layer.norm_weight, layer.norm_bias, h + t * ldc);
}

// One document's vector; zero where it has no tokens.
void pool(const Network& net, const float* h, int64_t tokens, float* pooled, Workspace& w) {
    const int64_t C = net.channels(), ldc = padded(C);
    std::fill_n(pooled, net.pooled(), 0.0f);
    if (!tokens) return;
    if (net.pool_score) {
        float* scores = Workspace::room(w.scores, tokens);
        for (int64_t t = 0; t < tokens; t++) {
            scores[t] = 0;
            for (int64_t c = 0; c < C; c++) scores[t] += h[t * ldc + c] * net.pool_score[c];
        }
        const float inverse = softmax(scores, tokens, 1.0f);
        for (int64_t t = 0; t < tokens; t++) add_scaled(pooled, h + t * ldc, scores[t] * inverse, C);
        pooled += C;
    }
    if (net.mean) {
        for (int64_t t = 0; t < tokens; t++) add_scaled(pooled, h + t * ldc, 1.0f, C);
        for (int64_t c = 0; c < C; c++) pooled[c] /= tokens;
        pooled += C;
    }
    if (net.maximum) {
        std::copy_n(h, C, pooled);
        for (int64_t t = 1; t < tokens; t++) take_maximum(pooled, h + t * ldc, C);
    }
}

// Logits to probabilities, one by one and in double: what a vector unit does to a row's tail may differ in the last bit.
void activate(const float* logits, const float* bias, int64_t n, bool one_label, float* probabilities) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = std::max<double>(top, logits[i] + bias[i]);
    for (int64_t i = 0; i < n; i++) sum += std::exp(logits[i] + bias[i] - top);
    for (int64_t i = 0; i < n; i++) {
        const double x = logits[i] + bias[i];
        probabilities[i] = (float)(one_label ? std::exp(x - top) / sum : 1 / (1 + std::exp(-x)));
    }
}

// Documents [first, last) through the network into their rows of probabilities [S, labels].
void run_group(const Network& net, const int32_t* ids, const int64_t* all_offsets, int64_t first, int64_t last,
               float* probabilities, Workspace& w) {
    const int64_t documents = last - first, start = all_offsets[first], T = all_offsets[last] - start;
    std::vector<int64_t> offsets(documents + 1);
    for (int64_t d = 0; d <= documents; d++) offsets[d] = all_offsets[first + d] - start;
    const int64_t ldc = padded(net.channels()), lde = padded(net.embedding_size), labels = net.labels;
    float *x = Workspace::room(w.x, T * std::max(ldc, lde)), *h = Workspace::room(w.h, T * std::max(ldc, lde));
    for (int64_t t = 0; t < T; t++)
        std::copy_n(net.embedding + ids[start + t] * net.embedding_size, net.embedding_size, x + t * lde);
    if (net.first) product(x, lde, T, net.first, net.embedding_size, net.channels(), h), std::swap(x, h);
    for (int64_t i = 0; i < net.count; i++) {
        run_layer(net, net.layers[i], x, offsets.data(), documents, h, w);
        std::swap(x, h);
    }
    float* pooled = Workspace::room(w.pooled, documents * net.pooled());
    float* logits = Workspace::room(w.logits, documents * padded(labels));
    for (int64_t d = 0; d < documents; d++)
        pool(net, x + offsets[d] * ldc, offsets[d + 1] - offsets[d], pooled + d * net.pooled(), w);
    product(pooled, net.pooled(), documents, net.head, net.pooled(), labels, logits);
    for (int64_t d = 0; d < documents; d++)
        activate(logits + d * padded(labels), net.head_bias, labels, net.one_label, probabilities + (first + d) * labels);
}

// First document of each group, and the end.
std::vector<int64_t> groups(const int64_t* offsets, int64_t sequences) {
    std::vector<int64_t> bounds{0};
    for (int64_t s = 1; s <= sequences; s++)
        if (s == sequences || offsets[s] - offsets[bounds.back()] >= GROUP) bounds.push_back(s);
    return bounds;
}

}  // namespace

extern "C" {

// ids [T], all inside the vocabulary; offsets [S + 1] -> probabilities [S, labels]. Returns 0, or 1 when memory ran out.
int srupp_classify(const Network* net, const int32_t* ids, const int64_t* offsets, int64_t sequences,
                   float* probabilities, int threads) {
    try {
        const std::vector<int64_t> bounds = groups(offsets, sequences);
        return !share_out((int64_t)bounds.size() - 1, threads, 1, [&](int64_t group) {
            static thread_local Workspace workspace;
            run_group(*net, ids, offsets, bounds[group], bounds[group + 1], probabilities, workspace);
        });
    } catch (const std::exception&) {
        return 1;
    }
}

// Args: u [T, matrices, C]; x [T, C] or null; weight, bias [2, C] (forget, reset); start [D, C] or null; keep [D, C]
// (dropout of the output) or null; offsets [D + 1]; C = directions * hidden.
// Out: h [T, C]; c [T, C] or null; last [D, C].
void sru_forward(const float* u, const float* x, float scale, const float* weight, const float* bias,
                 const float* start, const float* keep, const int64_t* offsets, int64_t documents, int64_t hidden,
                 int64_t directions, int64_t matrices, float* h, float* c, float* last, int threads) {
    const int64_t row = hidden * directions;
    const Inputs in{u, x, scale, weight, bias, start, keep, offsets, documents, hidden, directions, matrices, row};
    share_out(in.tasks(), threads, 16, [&](int64_t index) { forward(in, h, c, last, index); });
}

// The gradients of sru_forward. Args: its inputs, c as it was put out, dh [T, C] and dlast [D, C].
// Out: du as u; dx as x or null; dparameters [D, 4, C], a document's share of dweight and dbias; dstart [D, C].
void sru_backward(const float* u, const float* x, float scale, const float* weight, const float* bias,
                  const float* start, const float* keep, const int64_t* offsets, int64_t documents, int64_t hidden,
                  int64_t directions, int64_t matrices, const float* c, const float* dh, const float* dlast, float* du,
                  float* dx, float* dparameters, float* dstart, int threads) {
    const int64_t row = hidden * directions;
    const Inputs in{u, x, scale, weight, bias, start, keep, offsets, documents, hidden, directions, matrices, row};
    share_out(in.tasks(), threads, 16,
              [&](int64_t index) { backward(in, c, dh, dlast, du, dx, dparameters, dstart, index); });
}

}  // extern "C"
