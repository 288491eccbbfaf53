// Sharing a kernel's work out among threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

// Runs body(index) for every index below count, on the calling thread and on up to threads - 1 more; fewer where the
// system has no more. Returns false when a body threw, which is for lack of memory; some indices were not run then.
template <typename Body>
bool share_out(int64_t count, int threads, int64_t grain, const Body& body) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> whole{true};
    const auto work = [&] {
        try {
            for (int64_t first; whole && (first = next.fetch_add(grain)) < count;)
                for (int64_t index = first; index < std::min(first + grain, count); index++) body(index);
        } catch (const std::exception&) {
            whole = false;
        }
    };
    std::vector<std::thread> others;
    try {
        const int64_t useful = std::min<int64_t>(threads, (count + grain - 1) / grain);
        others.reserve(std::max<int64_t>(0, useful - 1));
        for (int64_t i = 1; i < useful; i++) others.emplace_back(work);
    } catch (const std::exception&) {  // no more threads to be had: those that started, and this one, do it all
    }
    work();
    for (std::thread& thread : others) thread.join();
    return whole;
}
