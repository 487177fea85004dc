#include "src/partition.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>

namespace app {
namespace {

using Index = std::size_t;

// Sets of things that are connected.
class Sets {
 public:
  explicit Sets(Index count) : parents_(count) { std::iota(parents_.begin(), parents_.end(), 0); }
  Index of(Index i) {
    while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
    return i;
  }
  // The lower number stands for both, so that the order of the file is kept.
  void join(Index a, Index b) {
    a = of(a);
    b = of(b);
    parents_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<Index> parents_;
};

class Partition {
 public:
  Partition(const Config& config, Drivers drivers)
      : config_(config), drivers_(drivers), copied_(config.nodes.size()) {
    for (Index i = 0; i < config.nodes.size(); ++i) numbers_[config.nodes[i].name] = i;
    children_.resize(config.nodes.size());
    for (Index i = 0; i < config.nodes.size(); ++i) {
      const Options& options = *config.nodes[i].options;
      copied_[i] = is_for_reading(options) && reads_only(options);
      find_children(options, children_[i]);
      // children come first in a configuration, so what is said of them is known
      for (const Index child : children_[i]) copied_[i] = copied_[i] && copied_[child];
    }
  }

  std::vector<Part> parts(Index copies_max) {
    // nodes, then exports
    Sets sets(config_.nodes.size() + config_.exports.size());
    for (Index i = 0; i < config_.nodes.size(); ++i) {
      for (const Index child : children_[i]) {
        if (!copied_[i] && !copied_[child]) sets.join(i, child);
      }
    }
    for (Index i = 0; i < config_.exports.size(); ++i) {
      const Index node = numbers_.at(config_.exports[i].node);
      if (!copied_[node]) sets.join(node, config_.nodes.size() + i);
    }
    share_copies(sets, copies_max);
    return collect(sets);
  }

 private:
  static bool is_true(const OptionValue* value) {
    return value != nullptr && std::get_if<bool>(&value->data) != nullptr &&
           std::get<bool>(value->data);
  }
  static bool is_for_reading(const Options& options) { return is_true(options.find("read-only")); }

  // No inline child asks to be written.
  static bool reads_only(const Options& options) {
    return std::ranges::all_of(options.entries(), [](const auto& entry) {
      const Options* inner = entry.second.table();
      if (inner == nullptr) return true;
      const OptionValue* said = inner->find("read-only");
      return (said == nullptr || is_true(said)) && reads_only(*inner);
    });
  }

  void find_children(const Options& options, std::vector<Index>& found) const {
    const std::string& kind = *options.find("driver")->text();
    const graph::Driver& driver = **std::ranges::find(drivers_, kind, &graph::Driver::name);
    for (const OptionSpec& spec : driver.options) {
      const OptionValue* child = spec.kind == Kind::node ? options.find(spec.key) : nullptr;
      if (child == nullptr) continue;
      if (child->table() != nullptr) {
        find_children(*child->table(), found);
      } else if (!child->text()->empty()) {
        found.push_back(numbers_.at(*child->text()));
      }
    }
  }

  // Everything beneath `node`, itself included.
  void add_below(Index node, std::vector<bool>& wanted) const {
    if (wanted[node]) return;
    wanted[node] = true;
    for (const Index child : children_[node]) add_below(child, wanted);
  }

  // Who shares a copied node, and there would be more copies than workers: joined, in turns.
  void share_copies(Sets& sets, Index copies_max) {
    std::map<Index, std::vector<Index>> users;  // of a copied node: the sets that need it
    const auto note = [&](Index user, Index node) {
      if (!copied_[node]) return;
      std::vector<bool> below(config_.nodes.size());
      add_below(node, below);
      for (Index i = 0; i < below.size(); ++i) {
        if (below[i]) users[i].push_back(user);
      }
    };
    for (Index i = 0; i < config_.nodes.size(); ++i) {
      for (const Index child : children_[i]) {
        if (!copied_[i]) note(i, child);
      }
    }
    for (Index i = 0; i < config_.exports.size(); ++i) {
      note(config_.nodes.size() + i, numbers_.at(config_.exports[i].node));
    }
    for (auto& [node, list] : users) {
      for (Index& user : list) user = sets.of(user);
      std::ranges::sort(list);
      const auto again = std::ranges::unique(list);
      list.erase(again.begin(), again.end());
      for (Index i = copies_max; i < list.size(); ++i) sets.join(list[i % copies_max], list[i]);
    }
  }

  std::vector<Part> collect(Sets& sets) const {
    const Index nodes = config_.nodes.size();
    std::map<Index, std::vector<bool>> needed;  // nodes of each set
    std::map<Index, std::vector<const ExportConfig*>> exports;
    const auto need = [&](Index set, Index node) {
      const auto [at, fresh] = needed.try_emplace(set, nodes);
      add_below(node, at->second);
    };
    std::vector<bool> used(nodes);
    for (Index i = 0; i < nodes; ++i) {
      if (!copied_[i]) need(sets.of(i), i);
    }
    for (Index i = 0; i < config_.exports.size(); ++i) {
      const Index set = sets.of(nodes + i);
      need(set, numbers_.at(config_.exports[i].node));
      exports[set].push_back(&config_.exports[i]);
    }
    for (const auto& [set, wanted] : needed) {
      for (Index i = 0; i < nodes; ++i) used[i] = used[i] || wanted[i];
    }
    // what nobody uses is opened all the same: so is found what is wrong with it
    for (Index i = nodes; i-- > 0;) {
      if (used[i]) continue;
      need(i, i);
      add_below(i, used);
    }
    std::vector<Part> result;
    for (const auto& [set, wanted] : needed) {
      Part part;
      for (Index i = 0; i < nodes; ++i) {
        if (wanted[i]) part.nodes.push_back(&config_.nodes[i]);
      }
      if (const auto found = exports.find(set); found != exports.end())
        part.exports = found->second;
      result.push_back(std::move(part));
    }
    return result;
  }

  const Config& config_;
  const Drivers drivers_;
  std::map<std::string, Index, std::less<>> numbers_;
  std::vector<std::vector<Index>> children_;  // named ones, inline tables seen through
  std::vector<bool> copied_;                  // read-only for everybody, down to the bottom
};

}  // namespace

std::vector<Part> partition(const Config& config, Drivers drivers, std::size_t copies_max) {
  return Partition(config, drivers).parts(std::max<std::size_t>(1, copies_max));
}

}  // namespace app
