// Which lists of launches run as a graph, and which graph of an earlier pass serves. Host code without CUDA.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "backend/cuda/device/launch_list.h"

namespace lk::cuda {

// How lists ran.
struct GraphCounts {
    uint64_t queued = 0;     // launch by launch: the first list with its key
    uint64_t built = 0;      // as a new graph
    uint64_t unchanged = 0;  // as an earlier graph
    uint64_t updated = 0;    // as an earlier graph with other parameters
    uint64_t launches = 0;   // whose parameters were updated
};

// Keeps the graphs of the last kMost keys. Graph: update(list, i) gives one of its launches the grid and arguments of
// launch i of the list; false if the driver refuses.
template <class Graph>
class GraphCache {
public:
    static constexpr size_t kMost = 64;

    // Returns the graph that runs the list, or null if the caller must run its launches one by one: the first list with
    // a key does not pay for a graph. May exchange the list's content for that of another list.
    // make: LaunchList& -> std::unique_ptr<Graph>; null if the driver refuses.
    template <class Make>
    Graph* prepare(LaunchList& list, Make&& make) {
        Entry* const entry = find(list.key());
        if (entry == nullptr) {
            add(list.key());
            ++counts_.queued;
            return nullptr;
        }
        entry->last_use = ++clock_;
        // Not in the entry until it is valid: an error may leave a graph of neither list.
        std::unique_ptr<Graph> graph = std::move(entry->graph);
        std::optional<std::vector<size_t>> changed;
        if (graph != nullptr) {
            changed = list.changes_from(entry->list);
        }
        if (changed && changed->empty()) {
            ++counts_.unchanged;
            entry->graph = std::move(graph);
            return entry->graph.get();
        }
        if (changed &&
            std::all_of(changed->begin(), changed->end(), [&](size_t i) { return graph->update(list, i); })) {
            ++counts_.updated;
            counts_.launches += changed->size();
        } else {
            graph = nullptr;  // frees its memory before the new one is made
            graph = make(list);
            ++(graph != nullptr ? counts_.built : counts_.queued);
        }
        entry->graph = std::move(graph);
        if (entry->graph != nullptr) {
            std::swap(entry->list, list);
        }
        return entry->graph.get();
    }

    const GraphCounts& counts() const { return counts_; }

private:
    struct Entry {
        uint64_t key;
        uint64_t last_use;
        LaunchList list;  // of the graph
        std::unique_ptr<Graph> graph;
    };

    Entry* find(uint64_t key) {
        const auto found = std::find_if(entries_.begin(), entries_.end(), [=](const Entry& e) { return e.key == key; });
        return found == entries_.end() ? nullptr : &*found;
    }

    void add(uint64_t key) {
        if (entries_.size() == kMost) {
            entries_.erase(std::min_element(entries_.begin(), entries_.end(),
                                            [](const Entry& a, const Entry& b) { return a.last_use < b.last_use; }));
        }
        entries_.push_back({key, ++clock_, {}, nullptr});
    }

    std::vector<Entry> entries_;
    uint64_t clock_ = 0;
    GraphCounts counts_;
};

}  // namespace lk::cuda
